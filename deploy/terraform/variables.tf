variable "bucket" {
  description = "Name of the bucket that holds the repository."
  type        = string
}

variable "prefix" {
  description = "Prefix of the repository in the bucket, as in `url = \"s3://bucket/prefix\"`; no slash at either end."
  type        = string
  default     = "estate"

  validation {
    condition     = var.prefix != "" && !startswith(var.prefix, "/") && !endswith(var.prefix, "/")
    error_message = "The prefix is not empty and has no slash at either end."
  }
}

variable "object_lock" {
  description = "Make the bucket able to lock objects. Lifeboat sets the dates itself, object by object ([repository.object_lock]); the bucket gets no default retention, which would lock wal-live/, leases/ and the checkpoint too. Can be chosen only when the bucket is made."
  type        = bool
  default     = true
}

variable "old_versions_days" {
  description = "Days after which versions that are no longer current are removed. They are what brings a deleted object back, and what wal-live/ leaves behind."
  type        = number
  default     = 30

  validation {
    condition     = var.old_versions_days >= 7
    error_message = "Keep old versions for a week at least: they are the way back after a deletion."
  }
}

variable "kms_key_arn" {
  description = "Key for the store's own encryption, beside Lifeboat's; null: the bucket's default (SSE-S3)."
  type        = string
  default     = null
}

variable "writer_role_names" {
  description = "Roles of hosts that back up."
  type        = list(string)
  default     = []
}

variable "pruner_role_names" {
  description = "Roles of hosts that run `lifeboat prune`. Only these may delete backups; none where nothing is ever to be deleted."
  type        = list(string)
  default     = []
}

variable "reader_role_names" {
  description = "Roles of hosts that restore and drill. They read everything; what they may open is decided by the recovery key."
  type        = list(string)
  default     = []
}

variable "auditor_role_names" {
  description = "Roles of auditors: the ledger and the public keys, nothing else."
  type        = list(string)
  default     = []
}

variable "tags" {
  description = "Tags of everything that is made."
  type        = map(string)
  default     = {}
}
