# Tested by parsing and static checks only (deploy/lint.sh); `terraform plan` needs an AWS account.
terraform {
  required_version = ">= 1.6"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.60, < 7.0"
    }
  }
}
