//! CloudTrail records (event version 1.09), by the mix of calls that accounts show.

use event::{Micros, format_micros};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore};

use super::world::{Principal, uuid, zipf};

/// Service, call, read-only, one request parameter. The commonest first: drawn by rank.
const CALLS: [(&str, &str, bool, &str); 32] = [
    ("kms", "Decrypt", true, "keyId"),
    ("ec2", "DescribeRouteTables", true, "filterSet"),
    ("iam", "GetUser", true, "userName"),
    ("ssm", "DescribeParameters", true, "maxResults"),
    ("s3", "GetBucketAcl", true, "bucketName"),
    ("ssm", "GetParameter", true, "name"),
    ("ec2", "DescribeInstances", true, "instancesSet"),
    ("sts", "AssumeRole", true, "roleArn"),
    ("kms", "GenerateDataKey", true, "keyId"),
    ("secretsmanager", "GetSecretValue", true, "secretId"),
    ("ec2", "DescribeNatGateways", true, "filterSet"),
    ("health", "DescribeEventAggregates", true, "filter"),
    ("ssm", "PutParameter", false, "name"),
    ("iam", "ListAttachedRolePolicies", true, "roleName"),
    ("s3", "PutObject", false, "bucketName"),
    ("logs", "CreateLogStream", false, "logGroupName"),
    ("rds", "DescribeDBInstances", true, "dBInstanceIdentifier"),
    ("autoscaling", "DescribeAutoScalingGroups", true, "autoScalingGroupNames"),
    ("ec2", "DescribeSecurityGroups", true, "filterSet"),
    ("elasticloadbalancing", "DescribeTargetHealth", true, "targetGroupArn"),
    ("ec2", "RunInstances", false, "instanceType"),
    ("lambda", "UpdateFunctionConfiguration20150331v2", false, "functionName"),
    ("dynamodb", "DescribeTable", true, "tableName"),
    ("ecr", "GetAuthorizationToken", true, "registryIds"),
    ("sqs", "GetQueueAttributes", true, "queueUrl"),
    ("iam", "GetRole", true, "roleName"),
    ("ec2", "CreateTags", false, "resourcesSet"),
    ("cloudformation", "DescribeStacks", true, "stackName"),
    ("eks", "DescribeCluster", true, "name"),
    ("sns", "Publish", false, "topicArn"),
    ("cloudtrail", "GetTrailStatus", true, "name"),
    ("ec2", "AuthorizeSecurityGroupIngress", false, "groupId"),
];

/// One record as CloudTrail writes it.
pub struct Record<'a> {
    pub service: &'a str,
    pub call: &'a str,
    pub read_only: bool,
    /// JSON text.
    pub parameters: String,
    /// JSON text.
    pub response: String,
    /// Code and message.
    pub error: Option<(&'a str, String)>,
    pub principal: &'a Principal,
}

impl Record<'_> {
    pub fn render(&self, rng: &mut SmallRng, at: Micros) -> (String, Vec<u8>) {
        let Record { service, call, read_only, parameters, response, error, principal } = self;
        let error = match error {
            Some((code, message)) => format!(r#","errorCode":"{code}","errorMessage":"{message}""#),
            None => String::new(),
        };
        let (request_id, event_id) = (uuid(rng), uuid(rng));
        let text = format!(
            r#"{{"eventVersion":"1.09","userIdentity":{identity},"eventTime":"{time}","eventSource":"{service}.amazonaws.com","eventName":"{call}","awsRegion":"{region}","sourceIPAddress":"{ip}","userAgent":"{agent}"{error},"requestParameters":{parameters},"responseElements":{response},"requestID":"{request_id}","eventID":"{event_id}","readOnly":{read_only},"eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":"{account}","eventCategory":"Management","tlsDetails":{{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256","clientProvidedHostHeader":"{service}.{region}.amazonaws.com"}}}}"#,
            identity = principal.identity(),
            time = format_micros(at - at.rem_euclid(1_000_000)),
            region = principal.region,
            ip = principal.ip,
            agent = principal.agent,
            account = principal.account,
        );
        (event_id, text.into_bytes())
    }
}

/// One background record of a call made at `at`.
pub fn background(rng: &mut SmallRng, at: Micros) -> Vec<u8> {
    let principal = Principal::draw(rng);
    let failed = rng.random_range(0..1000);
    let mut rank = (CALLS.len() as f64).powf(rng.random::<f64>()) as usize - 1;
    if failed < 16 {
        // Who is denied is mostly one job asking for one thing over and over.
        rank = principal.account.len() + principal.name.len() % 8;
    }
    let (service, call, read_only, parameter) = CALLS[rank.min(CALLS.len() - 1)];
    let value = format!("{service}-{}", zipf(rng, 5_000));
    let error = match failed {
        0..16 => Some((
            if service == "ec2" { "Client.UnauthorizedOperation" } else { "AccessDenied" },
            format!("User: {} is not authorized to perform: {service}:{call}", principal.arn()),
        )),
        16..50 => Some(("ThrottlingException", "Rate exceeded".to_owned())),
        _ => None,
    };
    let denied = matches!(error, Some((code, _)) if code != "ThrottlingException");
    let parameters = if denied { "null".to_owned() } else { format!(r#"{{"{parameter}":"{value}"}}"#) };
    let response = if read_only || error.is_some() {
        "null".to_owned()
    } else {
        format!(r#"{{"_return":true,"version":{}}}"#, rng.next_u32() % 900)
    };
    Record { service, call, read_only, parameters, response, error, principal: &principal }.render(rng, at).1
}
