#!/usr/bin/env bash
# What cluster.yaml needs in an AWS account, made once:  bash clusters/aws_setup.sh REGION BUCKET [CLUSTER_NAME]
#   - the bucket for ledger and checkpoints (private; kept when the cluster goes)
#   - a role "d2l-study" for the nodes: the head starts, tags and ends the nodes of this cluster in this region, and no
#     other instance of the account; all of them read and write this one bucket
# CLUSTER_NAME is that of cluster.yaml (default: d2l-study). Needs the aws command and an account that may create both. A
# second time changes nothing; with another BUCKET, REGION or CLUSTER_NAME the role reaches that one instead.
set -euo pipefail
usage="usage: bash clusters/aws_setup.sh REGION BUCKET [CLUSTER_NAME]"
[ $# -eq 2 ] || [ $# -eq 3 ] || { echo "$usage" >&2; exit 2; }
region=$1 bucket=$2 cluster=${3-d2l-study} name=d2l-study
for word in "$region" "$bucket" "$cluster"; do  # they become part of a policy, in which * stands for everything
  case $word in '' | *[!A-Za-z0-9._-]*) echo "error: '$word': expected letters, digits and . _ -; $usage" >&2; exit 2 ;; esac
done

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
arn=${role%%:iam:*} account=$(echo "$role" | cut -d: -f5)
ec2="$arn:ec2:$region"
# Ray tags each node with the cluster's name as it starts it. What bears that tag may be tagged further and ended; a node
# without it cannot be started, and no tag can be put on what is there already, so nothing else comes within reach.
policy=$(cat <<END
{"Version": "2012-10-17", "Statement": [
  {"Sid": "Results", "Effect": "Allow", "Resource": "$arn:s3:::$bucket/*",
   "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]},
  {"Sid": "Bucket", "Effect": "Allow", "Resource": "$arn:s3:::$bucket", "Action": ["s3:ListBucket", "s3:GetBucketLocation"]},
  {"Sid": "Look", "Effect": "Allow", "Resource": "*", "Action": "ec2:Describe*"},
  {"Sid": "StartNodes", "Effect": "Allow", "Resource": "$ec2:$account:instance/*", "Action": "ec2:RunInstances",
   "Condition": {"StringEquals": {"aws:RequestTag/ray-cluster-name": "$cluster"}}},
  {"Sid": "StartNodesWith", "Effect": "Allow", "Action": "ec2:RunInstances", "Resource": ["$ec2::image/*",
   "$ec2::snapshot/*", "$ec2:$account:subnet/*", "$ec2:$account:security-group/*", "$ec2:$account:key-pair/*",
   "$ec2:$account:network-interface/*", "$ec2:$account:volume/*", "$ec2:$account:spot-instances-request/*"]},
  {"Sid": "TagNewNodes", "Effect": "Allow", "Resource": "$ec2:$account:instance/*", "Action": "ec2:CreateTags",
   "Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances", "aws:RequestTag/ray-cluster-name": "$cluster"}}},
  {"Sid": "OwnNodes", "Effect": "Allow", "Resource": "$ec2:$account:instance/*",
   "Action": ["ec2:TerminateInstances", "ec2:CreateTags"],
   "Condition": {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": "$cluster"}}},
  {"Sid": "Image", "Effect": "Allow", "Resource": "$arn:ssm:$region::parameter/aws/service/*", "Action": "ssm:GetParameters"},
  {"Sid": "NodesRole", "Effect": "Allow", "Resource": "$role", "Action": "iam:PassRole",
   "Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}}]}
END
)
aws iam put-role-policy --role-name $name --policy-name $name --policy-document "$policy"
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
