# The bucket of a Lifeboat repository, and one policy for each who reaches it: writer, pruner, reader, auditor.
#
# What it promises: the bucket is private and speaks TLS only; nothing that is committed can be replaced, because the
# store itself refuses a put of a committed object without `If-None-Match`; a deleted object comes back from its old
# version for `old_versions_days`; the host that backs up cannot delete backups.

locals {
  root = "${aws_s3_bucket.repository.arn}/${var.prefix}"

  # What is written once and never replaced: all but leases' and live pieces' short lives, and the ledger's checkpoint.
  committed = [
    "${local.root}/lifeboat.json",
    "${local.root}/keys/*",
    "${local.root}/*/ledger/*.json",
    "${local.root}/*/data/*",
    "${local.root}/*/meta/*",
    "${local.root}/*/wal/*",
  ]

  # What a host that backs up may delete: it is merged into something durable first.
  short_lived = [
    "${local.root}/*/wal-live/*",
    "${local.root}/*/filestore-live/*",
    "${local.root}/*/leases/*",
    "${local.root}/probe/*",
  ]

  # What an auditor verifies with public keys alone.
  evidence = [
    "${local.root}/lifeboat.json",
    "${local.root}/keys/signers/*",
    "${local.root}/*/ledger/*",
  ]
}

resource "aws_s3_bucket" "repository" {
  bucket              = var.bucket
  object_lock_enabled = var.object_lock
  tags                = var.tags

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "repository" {
  bucket = aws_s3_bucket.repository.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_public_access_block" "repository" {
  bucket                  = aws_s3_bucket.repository.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "repository" {
  bucket = aws_s3_bucket.repository.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "repository" {
  bucket = aws_s3_bucket.repository.id

  rule {
    bucket_key_enabled = var.kms_key_arn != null

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

# Nothing that is current ever expires here: what goes is decided by `lifeboat prune`, which knows what needs what.
resource "aws_s3_bucket_lifecycle_configuration" "repository" {
  bucket     = aws_s3_bucket.repository.id
  depends_on = [aws_s3_bucket_versioning.repository]

  rule {
    id     = "old-versions"
    status = "Enabled"

    filter {
      prefix = "${var.prefix}/"
    }

    noncurrent_version_expiration {
      noncurrent_days = var.old_versions_days
    }

    expiration {
      expired_object_delete_marker = true
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
  }
}

data "aws_iam_policy_document" "bucket" {
  statement {
    sid       = "OnlyTls"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.repository.arn, "${aws_s3_bucket.repository.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
  statement {
    sid       = "CommittedObjectsAreCreatedOnce"
    effect    = "Deny"
    actions   = ["s3:PutObject"]
    resources = local.committed

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Null"
      variable = "s3:if-none-match"
      values   = ["true"]
    }
  }

  # Lifeboat never goes around a lock; whoever must, removes this statement first, which leaves a trace.
  statement {
    sid       = "NobodyGoesAroundALock"
    effect    = "Deny"
    actions   = ["s3:BypassGovernanceRetention", "s3:DeleteObjectVersion", "s3:PutBucketVersioning"]
    resources = [aws_s3_bucket.repository.arn, "${aws_s3_bucket.repository.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "ArnNotLike"
      variable = "aws:PrincipalArn"
      values   = ["arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root"]
    }
  }
}

data "aws_partition" "current" {}

data "aws_caller_identity" "current" {}

resource "aws_s3_bucket_policy" "repository" {
  bucket     = aws_s3_bucket.repository.id
  policy     = data.aws_iam_policy_document.bucket.json
  depends_on = [aws_s3_bucket_public_access_block.repository]
}
