# Who may do what. Each policy lists what Lifeboat asks for in that role, and no more.

locals {
  lock_actions = var.object_lock ? ["s3:PutObjectRetention", "s3:GetObjectRetention"] : []
}

data "aws_iam_policy_document" "list" {
  statement {
    sid = "Look"
    # Without ListBucket the store answers 403 for an absent object, which proves nothing.
    actions = [
      "s3:ListBucket",
      "s3:GetBucketLocation",
      "s3:GetBucketVersioning",
      "s3:GetBucketObjectLockConfiguration",
      "s3:GetBucketPublicAccessBlock",
      "s3:GetEncryptionConfiguration",
    ]
    resources = [aws_s3_bucket.repository.arn]
  }
}

# A host that backs up: writes, reads back what it wrote, deletes only what is short-lived.
data "aws_iam_policy_document" "writer" {
  source_policy_documents = [data.aws_iam_policy_document.list.json]

  statement {
    sid       = "Write"
    actions   = concat(["s3:GetObject", "s3:PutObject"], local.lock_actions)
    resources = ["${local.root}/*"]
  }

  statement {
    sid       = "Tidy"
    actions   = ["s3:DeleteObject"]
    resources = local.short_lived
  }
}

# Beside the writer's: what `lifeboat prune` deletes. Old versions stay; the ledger and the keys are out of its reach.
data "aws_iam_policy_document" "pruner" {
  source_policy_documents = [data.aws_iam_policy_document.list.json]

  statement {
    sid       = "Prune"
    actions   = ["s3:DeleteObject"]
    resources = ["${local.root}/*/data/*", "${local.root}/*/meta/*", "${local.root}/*/wal/*"]
  }
}

# A host that restores and drills: reads all, and writes what a restore or a drill records.
data "aws_iam_policy_document" "reader" {
  source_policy_documents = [data.aws_iam_policy_document.list.json]

  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = ["${local.root}/*"]
  }

  statement {
    sid     = "Record"
    actions = ["s3:PutObject"]
    resources = [
      "${local.root}/*/ledger/*",
      "${local.root}/*/leases/*",
      "${local.root}/keys/signers/*",
    ]
  }

  statement {
    sid       = "Tidy"
    actions   = ["s3:DeleteObject"]
    resources = ["${local.root}/*/leases/*"]
  }
}

# An auditor: `lifeboat evidence verify`, which needs no key that opens anything.
data "aws_iam_policy_document" "auditor" {
  statement {
    sid       = "Verify"
    actions   = ["s3:GetObject"]
    resources = local.evidence
  }

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.repository.arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${var.prefix}/*/ledger/*", "${var.prefix}/keys/signers/*", "${var.prefix}/"]
    }
  }
}

locals {
  policies = {
    writer  = { document = data.aws_iam_policy_document.writer.json, roles = var.writer_role_names }
    pruner  = { document = data.aws_iam_policy_document.pruner.json, roles = var.pruner_role_names }
    reader  = { document = data.aws_iam_policy_document.reader.json, roles = var.reader_role_names }
    auditor = { document = data.aws_iam_policy_document.auditor.json, roles = var.auditor_role_names }
  }

  attachments = merge([
    for name, policy in local.policies : { for role in policy.roles : "${name}/${role}" => { policy = name, role = role } }
  ]...)
}

resource "aws_iam_policy" "repository" {
  for_each    = local.policies
  name        = "lifeboat-${var.bucket}-${each.key}"
  description = "Lifeboat: ${each.key} of the repository in ${var.bucket}/${var.prefix}"
  policy      = each.value.document
  tags        = var.tags
}

resource "aws_iam_role_policy_attachment" "repository" {
  for_each   = local.attachments
  role       = each.value.role
  policy_arn = aws_iam_policy.repository[each.value.policy].arn
}
