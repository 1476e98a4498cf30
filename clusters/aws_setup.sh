#!/usr/bin/env bash
# What cluster.yaml needs in an AWS account, made once:  bash clusters/aws_setup.sh REGION BUCKET
#   - the bucket for ledger and checkpoints (private; kept when the cluster goes)
#   - a role "d2l-study" for the nodes: the head starts and ends nodes, all of them read and write this one bucket
# Needs the aws command and an account that may create both. A second time changes nothing; with another BUCKET the role
# reaches that one instead.
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: bash clusters/aws_setup.sh REGION BUCKET" >&2; exit 2; }
region=$1 bucket=$2 name=d2l-study

if aws s3api head-bucket --bucket "$bucket" 2>/dev/null; then
  echo "bucket $bucket: there already"
elif [ "$region" = us-east-1 ]; then  # the one region whose name is not a location constraint
  aws s3api create-bucket --region "$region" --bucket "$bucket" > /dev/null
else
  aws s3api create-bucket --region "$region" --bucket "$bucket" \
    --create-bucket-configuration "LocationConstraint=$region" > /dev/null
fi
aws s3api put-public-access-block --bucket "$bucket" --public-access-block-configuration \
  BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true

aws iam get-role --role-name $name > /dev/null 2>&1 || aws iam create-role --role-name $name > /dev/null \
  --assume-role-policy-document '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
    "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}'
role=$(aws iam get-role --role-name $name --query Role.Arn --output text)
aws iam put-role-policy --role-name $name --policy-name $name --policy-document "{\"Version\": \"2012-10-17\", \"Statement\": [
  {\"Effect\": \"Allow\", \"Action\": [\"s3:GetObject\", \"s3:PutObject\", \"s3:DeleteObject\", \"s3:AbortMultipartUpload\"],
   \"Resource\": \"arn:aws:s3:::$bucket/*\"},
  {\"Effect\": \"Allow\", \"Action\": [\"s3:ListBucket\", \"s3:GetBucketLocation\"], \"Resource\": \"arn:aws:s3:::$bucket\"},
  {\"Effect\": \"Allow\", \"Action\": [\"ec2:RunInstances\", \"ec2:TerminateInstances\", \"ec2:Describe*\", \"ec2:CreateTags\"],
   \"Resource\": \"*\"},
  {\"Effect\": \"Allow\", \"Action\": \"ssm:GetParameters\", \"Resource\": \"arn:aws:ssm:*::parameter/aws/service/*\"},
  {\"Effect\": \"Allow\", \"Action\": \"iam:PassRole\", \"Resource\": \"$role\"}]}"
# Of the account, not of this cluster: without it the first spot instance ever asked for is refused.
aws iam get-role --role-name AWSServiceRoleForEC2Spot > /dev/null 2>&1 ||
  aws iam create-service-linked-role --aws-service-name spot.amazonaws.com > /dev/null ||
  echo "warning: the account's role for spot instances could not be made; if it has none, spot nodes will not start" >&2
aws iam get-instance-profile --instance-profile-name $name > /dev/null 2>&1 || {
  aws iam create-instance-profile --instance-profile-name $name > /dev/null
  aws iam add-role-to-instance-profile --instance-profile-name $name --role-name $name
}
echo "bucket:  s3://$bucket   (run … --root 's3://$bucket/runs?region=$region')"
echo "role:    $role"
parameter=/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id
image=$(aws ssm get-parameter --region "$region" --name $parameter --query Parameter.Value --output text 2>/dev/null || true)
echo "image:   ${image:-could not be looked up} (ImageId in cluster.yaml, to have the same one every time)"
