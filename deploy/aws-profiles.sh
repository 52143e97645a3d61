#!/usr/bin/env bash
# Makes the two instance profiles of cluster.yaml for experiments in S3, once for an AWS account:
#   deploy/aws-profiles.sh BUCKET
# dialogue-tune-worker may read and write that bucket, and nothing else. dialogue-tune-head may do
# so too, start and end machines, and hand them the worker's profile. It needs the AWS command line
# and the right to make roles; what is there already is left, and its rights are written anew.
set -euo pipefail
bucket=${1:?the name of the bucket, without s3://}

# May be taken on by machines.
machines='{"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
  "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}'
storage='{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetBucketLocation"],
   "Resource": "arn:aws:s3:::'$bucket'"},
  {"Effect": "Allow", "Resource": "arn:aws:s3:::'$bucket'/*", "Action":
   ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]}]}'

for name in dialogue-tune-worker dialogue-tune-head; do
  aws iam get-role --role-name "$name" > /dev/null 2>&1 ||
    aws iam create-role --role-name "$name" --assume-role-policy-document "$machines" > /dev/null
  aws iam put-role-policy --role-name "$name" --policy-name storage --policy-document "$storage"
  aws iam get-instance-profile --instance-profile-name "$name" > /dev/null 2>&1 ||
    aws iam create-instance-profile --instance-profile-name "$name" > /dev/null
  # A profile holds one role, or none yet where an earlier run ended in between.
  role=$(aws iam get-instance-profile --instance-profile-name "$name" \
    --query 'InstanceProfile.Roles[].RoleName' --output text)
  [ "$role" = "$name" ] ||
    aws iam add-role-to-instance-profile --instance-profile-name "$name" --role-name "$name"
done

worker=$(aws iam get-role --role-name dialogue-tune-worker --query Role.Arn --output text)
aws iam attach-role-policy --role-name dialogue-tune-head \
  --policy-arn arn:aws:iam::aws:policy/AmazonEC2FullAccess
aws iam put-role-policy --role-name dialogue-tune-head --policy-name workers --policy-document \
  '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iam:PassRole",
    "Resource": "'"$worker"'"}]}'
echo "dialogue-tune-head and dialogue-tune-worker may use s3://$bucket"
