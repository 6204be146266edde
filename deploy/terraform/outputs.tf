output "url" {
  description = "What stands in `[repository] url`."
  value       = "s3://${aws_s3_bucket.repository.id}/${var.prefix}"
}

output "policy_arns" {
  description = "The policies, by who they are for."
  value       = { for name, policy in aws_iam_policy.repository : name => policy.arn }
}
