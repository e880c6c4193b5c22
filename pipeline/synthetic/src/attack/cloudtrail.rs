//! CloudTrail records as AWS delivers them, version 1.10: who calls, with which session, from where.
//! https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html

use event::{Micros, Source, format_micros};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore};
use serde_json::{Value, json};

use super::cast::{Cluster, Node, Person, User, digits, letters, number, uuid};
use super::scene::{Draft, NOW};
use crate::SECOND;

pub(super) const CLI: &str = "aws-cli/2.22.35 md/awscrt#0.23.4 ua/2.0 os/linux#6.8.0-49-generic md/arch#x86_64 lang/python#3.12.6 cfg/retry-mode#standard";
pub(super) const BOTO: &str = "Boto3/1.35.81 md/Botocore#1.35.81 ua/2.0 os/linux#6.1.0-28-amd64 md/arch#x86_64 lang/python#3.11.2 cfg/retry-mode#legacy";
pub(super) const TERRAFORM: &str = "APN/1.0 HashiCorp/1.0 Terraform/1.9.8 (+https://www.terraform.io) terraform-provider-aws/5.82.2 (+https://registry.terraform.io/providers/hashicorp/aws) aws-sdk-go-v2/1.32.7";
pub(super) const BROWSER: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";
const GO_SDK: &str = "aws-sdk-go/1.55.5 (go1.22.9; linux; amd64)";

/// Who calls.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    kind: Kind,
    /// Of the user or role.
    name: String,
    /// Of a role that Identity Center made, `aws-reserved/sso.amazonaws.com/`: part of the role's ARN, but not of its sessions'.
    path: String,
    session: String,
    key: String,
    pub account: String,
    pub region: String,
    pub ip: String,
    pub agent: String,
    /// When the session began, in seconds before the story.
    age: i64,
    mfa: bool,
    console: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    User,
    Role,
    Instance,
    /// A role whose session was opened with a token of an outside issuer.
    Federated,
}

impl Identity {
    /// The IAM user with its long-term key.
    pub fn user(user: &User) -> Identity {
        let User { name, account, region, ip, agent, key } = user.clone();
        let (kind, session) = (Kind::User, String::new());
        Identity {
            kind,
            name,
            path: String::new(),
            session,
            key,
            account,
            region,
            ip,
            agent,
            age: 0,
            mfa: false,
            console: false,
        }
    }

    /// A person as an IAM user of the cluster's account.
    pub fn user_of(cluster: &Cluster, person: &Person) -> Identity {
        let key = format!("AKIA{}", letters("user key", &format!("{}/{}", cluster.account, person.name), 16));
        let (name, account, region) = (person.name.clone(), cluster.account.clone(), cluster.region.clone());
        Identity::user(&User { name, account, region, ip: person.ip.clone(), agent: CLI.to_owned(), key })
    }

    /// A person in a role of the cluster's account: every second one by Identity Center.
    pub fn role(cluster: &Cluster, role: &str, person: &Person) -> Identity {
        let of = format!("{}/{role}/{}", cluster.account, person.name);
        let (mut name, mut path) = (role.to_owned(), String::new());
        if number("identity center", &person.name).is_multiple_of(2) {
            let set: String =
                role.split('-').flat_map(|word| [&word[..1].to_uppercase(), &word[1..]].map(str::to_owned)).collect();
            name = format!(
                "AWSReservedSSO_{set}_{}",
                digits("permission set", &format!("{}/{role}", cluster.account), 16)
            );
            let region = if cluster.region == "us-east-1" { String::new() } else { format!("{}/", cluster.region) };
            path = format!("aws-reserved/sso.amazonaws.com/{region}");
        }
        Identity {
            kind: Kind::Role,
            name,
            path,
            session: person.email.clone(),
            key: format!("ASIA{}", letters("session key", &of, 16)),
            age: 900 + (number("session", &of) % 9_000) as i64,
            mfa: true,
            ..Identity::user_of(cluster, person)
        }
    }

    /// A role that a program assumes, with a session named by it.
    pub fn program(cluster: &Cluster, role: &str, session: &str, ip: &str, agent: &str) -> Identity {
        let of = format!("{}/{role}/{session}", cluster.account);
        Identity {
            kind: Kind::Role,
            name: role.to_owned(),
            path: String::new(),
            session: session.to_owned(),
            key: format!("ASIA{}", letters("session key", &of, 16)),
            account: cluster.account.clone(),
            region: cluster.region.clone(),
            ip: ip.to_owned(),
            agent: agent.to_owned(),
            age: 120 + (number("session", &of) % 2_400) as i64,
            mfa: false,
            console: false,
        }
    }

    /// A role of a pipeline or a service account, by a web identity.
    pub fn federated(cluster: &Cluster, role: &str, session: &str, ip: &str, agent: &str) -> Identity {
        Identity { kind: Kind::Federated, ..Identity::program(cluster, role, session, ip, agent) }
    }

    /// The role of a node, in the session that the instance's metadata service hands out.
    pub fn node(cluster: &Cluster, node: &Node) -> Identity {
        Identity {
            kind: Kind::Instance,
            key: node.key.clone(),
            age: 600 + (number("session", &node.instance) % 18_000) as i64,
            ..Identity::program(cluster, &node.role, &node.instance, &cluster.way_out, GO_SDK)
        }
    }

    pub fn at(mut self, ip: &str) -> Identity {
        ip.clone_into(&mut self.ip);
        self
    }

    pub fn with(mut self, agent: &str) -> Identity {
        agent.clone_into(&mut self.agent);
        self
    }

    /// With another key of the same user.
    pub fn keyed(mut self, key: &str) -> Identity {
        key.clone_into(&mut self.key);
        self
    }

    /// Signed in to the console: the calls are made with its session.
    pub fn console(mut self, mfa: bool) -> Identity {
        self.key = format!("ASIA{}", letters("console key", &self.arn(), 16));
        (self.console, self.mfa, self.age) = (true, mfa, 0);
        self.with(BROWSER)
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// `AIDA…` of a user, `AROA…` of a role: the same in every session.
    pub fn id(&self) -> String {
        let prefix = if self.kind == Kind::User { "AIDA" } else { "AROA" };
        let kind = if self.kind == Kind::User { "user" } else { "role" };
        format!("{prefix}{}", letters(kind, &format!("{}/{}", self.account, self.name), 17))
    }

    pub fn session(&self) -> &str {
        &self.session
    }

    pub fn arn(&self) -> String {
        match self.kind {
            Kind::User => self.iam_arn(),
            _ => format!("arn:aws:sts::{}:assumed-role/{}/{}", self.account, self.name, self.session),
        }
    }

    /// The user or the role itself.
    pub fn iam_arn(&self) -> String {
        let kind = if self.kind == Kind::User { "user" } else { "role" };
        format!("arn:aws:iam::{}:{kind}/{}{}", self.account, self.path, self.name)
    }

    /// As EKS makes it of the session's ARN, which has no path.
    pub fn canonical_arn(&self) -> String {
        self.iam_arn().replace(&self.path, "")
    }

    /// As an access entry names it.
    pub fn user_in_cluster(&self) -> String {
        self.arn()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// `userIdentity`; the story's beginning is where a session's age is counted from.
    fn value(&self, start: Micros) -> Value {
        let Identity { name, account, key, .. } = self;
        let id = self.id();
        let born = format_micros(start - start.rem_euclid(SECOND) - self.age * SECOND);
        let attributes = json!({"creationDate": born, "mfaAuthenticated": self.mfa.to_string()});
        if self.kind == Kind::User {
            let mut user = json!({
                "type": "IAMUser", "principalId": id, "arn": self.arn(), "accountId": account, "accessKeyId": key, "userName": name,
            });
            if self.console {
                user["sessionContext"] = json!({"attributes": attributes});
            }
            return user;
        }
        let issuer = json!({
            "type": "Role", "principalId": id, "arn": self.iam_arn(), "accountId": account, "userName": name,
        });
        let mut context = json!({"sessionIssuer": issuer, "attributes": attributes});
        match self.kind {
            Kind::Instance => context["ec2RoleDelivery"] = json!("2.0"),
            Kind::Federated => {
                context["webIdFederationData"] = json!({"federatedProvider": "", "attributes": {}});
            }
            _ => {}
        }
        json!({
            "type": "AssumedRole", "principalId": format!("{id}:{}", self.session), "arn": self.arn(), "accountId": account,
            "accessKeyId": key, "sessionContext": context,
        })
    }
}

/// One call.
pub(super) struct Record {
    body: Value,
    service: &'static str,
    bucket: Option<String>,
}

impl Record {
    /// A call of an API. It reads if it is called so.
    pub fn new(start: Micros, who: &Identity, service: &'static str, call: &str) -> Record {
        let reads = ["Get", "List", "Describe", "Head", "Lookup", "AssumeRole", "Decrypt", "Batch"];
        let mut body = json!({
            "eventVersion": "1.10", "userIdentity": who.value(start), "eventTime": NOW,
            "eventSource": format!("{service}.amazonaws.com"), "eventName": call, "awsRegion": region(service, &who.region),
            "sourceIPAddress": who.ip, "userAgent": who.agent, "requestParameters": null, "responseElements": null,
            "readOnly": reads.iter().any(|verb| call.starts_with(verb)), "eventType": "AwsApiCall", "managementEvent": true,
            "recipientAccountId": who.account, "eventCategory": "Management",
        });
        if who.console {
            body["sessionCredentialFromConsole"] = json!("true");
        }
        let record = Record { body, service, bucket: None };
        match service {
            "s3" | "signin" => record,
            "ec2" => record.hosted(&format!("ec2.{}.amazonaws.com", who.region)),
            "iam" => record.hosted("iam.amazonaws.com"),
            _ => record.hosted(&format!("{service}.{}.amazonaws.com", who.region)),
        }
    }

    fn hosted(mut self, host: &str) -> Record {
        self.body["tlsDetails"] =
            json!({"tlsVersion": "TLSv1.3", "cipherSuite": "TLS_AES_128_GCM_SHA256", "clientProvidedHostHeader": host});
        self
    }

    pub fn asked(mut self, parameters: Value) -> Record {
        self.body["requestParameters"] = parameters;
        self
    }

    pub fn answered(mut self, elements: Value) -> Record {
        self.body["responseElements"] = elements;
        self
    }

    pub fn resources(mut self, resources: Value) -> Record {
        self.body["resources"] = resources;
        self
    }

    /// Refused: a policy lacks. The parameters are not in the record then.
    pub fn denied(mut self) -> Record {
        let action = format!("{}:{}", self.service, self.body["eventName"].as_str().unwrap_or_default());
        let who = self.body["userIdentity"]["arn"].as_str().unwrap_or_default();
        let why = format!(
            "is not authorized to perform: {action} because no identity-based policy allows the {action} action"
        );
        let (code, message) = match self.service {
            "ec2" => (
                "Client.UnauthorizedOperation",
                format!("You are not authorized to perform this operation. User: {who} {why}"),
            ),
            _ => ("AccessDenied", format!("User: {who} {why}")),
        };
        self.body["errorCode"] = json!(code);
        self.body["errorMessage"] = json!(message);
        self.body["requestParameters"] = Value::Null;
        self.body["responseElements"] = Value::Null;
        self
    }

    /// A call about a bucket itself.
    pub fn bucket(start: Micros, who: &Identity, call: &str, bucket: &str, more: Value) -> Record {
        let mut record = Record::new(start, who, "s3", call);
        let host = format!("{bucket}.s3.{}.amazonaws.com", who.region);
        let mut parameters = json!({"bucketName": bucket, "Host": host});
        extend(&mut parameters, more);
        record.body["requestParameters"] = parameters;
        record.body["resources"] =
            json!([{"type": "AWS::S3::Bucket", "ARN": format!("arn:aws:s3:::{bucket}"), "accountId": who.account}]);
        record.bucket = Some(bucket.to_owned());
        record.hosted(&host)
    }

    /// A call about an object: a data event.
    pub fn object(start: Micros, who: &Identity, call: &str, (bucket, key): (&str, &str), more: Value) -> Record {
        let mut record = Record::bucket(start, who, call, bucket, json!({"key": key}));
        extend(&mut record.body["requestParameters"], more);
        record.body["resources"] = json!([
            {"type": "AWS::S3::Object", "ARN": format!("arn:aws:s3:::{bucket}/{key}")},
            {"type": "AWS::S3::Bucket", "ARN": format!("arn:aws:s3:::{bucket}"), "accountId": who.account},
        ]);
        record.body["managementEvent"] = json!(false);
        record.body["eventCategory"] = json!("Data");
        record
    }

    /// A sign-in to the console with a password.
    pub fn sign_in(start: Micros, who: &Identity, success: bool, mfa: bool) -> Record {
        let mut record = Record::new(start, who, "signin", "ConsoleLogin");
        let body = &mut record.body;
        body["eventType"] = json!("AwsConsoleSignIn");
        body["userAgent"] = json!(BROWSER);
        body["userIdentity"] = match success {
            true => json!({
                "type": "IAMUser", "principalId": who.id(), "arn": who.arn(), "accountId": who.account, "userName": who.name,
            }),
            false => json!({
                "type": "IAMUser", "principalId": who.id(), "accountId": who.account, "accessKeyId": "", "userName": who.name,
            }),
        };
        body["responseElements"] = json!({"ConsoleLogin": if success { "Success" } else { "Failure" }});
        if !success {
            body["errorMessage"] = json!("Failed authentication");
        }
        let to = "https://console.aws.amazon.com/console/home?hashArgs=%23&isauthcode=true&state=hashArgsFromTB";
        body["additionalEventData"] =
            json!({"LoginTo": to, "MobileVersion": "No", "MFAUsed": if mfa { "Yes" } else { "No" }});
        if let Some(fields) = body.as_object_mut() {
            fields.remove("sessionCredentialFromConsole");
        }
        record.hosted(&format!("{}.signin.aws.amazon.com", who.region))
    }

    /// A token of an outside issuer is exchanged for a session of a role, which `role` then is.
    pub fn web_identity(
        start: Micros,
        cluster: &Cluster,
        role: &Identity,
        provider: &str,
        audience: &str,
        subject: &str,
    ) -> Record {
        let arn = format!("arn:aws:iam::{}:oidc-provider/{provider}", cluster.account);
        let expiration = format_micros(start - start.rem_euclid(SECOND) + 3_600 * SECOND);
        let mut record = Record::new(start, role, "sts", "AssumeRoleWithWebIdentity")
            .asked(json!({"roleArn": role.iam_arn(), "roleSessionName": role.session, "durationSeconds": 3600}))
            .answered(json!({
                "credentials": {
                    "accessKeyId": role.key, "expiration": expiration,
                    "sessionToken": digits("session token", &role.key, 64),
                },
                "subjectFromWebIdentityToken": subject,
                "assumedRoleUser": {"assumedRoleId": format!("{}:{}", role.id(), role.session), "arn": role.arn()},
                "provider": arn, "audience": audience,
            }))
            .resources(json!([{"accountId": role.account, "type": "AWS::IAM::Role", "ARN": role.iam_arn()}]));
        record.body["userIdentity"] = json!({
            "type": "WebIdentityUser", "principalId": format!("{arn}:{audience}:{subject}"), "userName": subject, "identityProvider": arn,
        });
        record
    }

    pub fn draft(mut self, rng: &mut SmallRng) -> Draft {
        self.body["eventID"] = json!(uuid(rng));
        self.body["requestID"] = json!(match self.service {
            "s3" => format!("{:016X}", rng.next_u64()),
            _ => uuid(rng),
        });
        if let Some(bucket) = &self.bucket {
            let moved = if self.body["readOnly"] == json!(true) { rng.random_range(900..4_000_000) } else { 0 };
            self.body["additionalEventData"] = json!({
                "SignatureVersion": "SigV4", "CipherSuite": "TLS_AES_128_GCM_SHA256", "AuthenticationMethod": "AuthHeader",
                "bytesTransferredIn": rng.random_range(0..900), "bytesTransferredOut": moved,
                "x-amz-id-2": format!("{}{:016x}{:016x}=", digits("id", bucket, 24), rng.next_u64(), rng.next_u64()),
            });
        }
        Draft::new(Source::CloudTrail, self.body)
    }
}

/// Services that are in one place for all regions.
fn region<'r>(service: &str, of_caller: &'r str) -> &'r str {
    if matches!(service, "iam" | "organizations" | "signin") { "us-east-1" } else { of_caller }
}

fn extend(value: &mut Value, more: Value) {
    if let (Value::Object(fields), Value::Object(more)) = (value, more) {
        fields.extend(more);
    }
}

/// Records have whole seconds.
pub(super) fn stamp(_: &mut Value, at: Micros) -> Micros {
    at - at.rem_euclid(SECOND)
}
