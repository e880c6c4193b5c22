//! Request parameters: what each kind of member in `calls.txt` looks like.

use event::{Micros, format_micros};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore};

use crate::random::{chance, entity_uuid, mix, pick, put, put_base64, uuid, zipf_of};
use crate::world::{Domain, Duty, Principal, PrincipalKind, Sizes, Thing, host, object_key, team};

/// The kind of a member.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    Id(Thing),
    Arn(Thing),
    /// `{"items":[{"vpcId":"..."}]}`
    Items(Thing),
    Word(&'static str),
    Made(&'static str),
}

impl Value {
    pub fn parse(kind: &'static str) -> Value {
        if let Some(word) = kind.strip_prefix("word:") {
            return Value::Word(word);
        }
        let thing = |name: &str| {
            Some(match name {
                "vpc" => Thing::Vpc,
                "subnet" => Thing::Subnet,
                "sg" => Thing::SecurityGroup,
                "rtb" => Thing::RouteTable,
                "igw" => Thing::InternetGateway,
                "nat" => Thing::NatGateway,
                "eip" => Thing::Address,
                "eni" => Thing::Interface,
                "instance" => Thing::Instance,
                "volume" => Thing::Volume,
                "snap" => Thing::Snapshot,
                "ami" => Thing::Image,
                "role" => Thing::Role,
                "user" => Thing::User,
                "profile" => Thing::Profile,
                "parameter" => Thing::Parameter,
                "secret" => Thing::Secret,
                "function" => Thing::Function,
                "database" => Thing::Database,
                "loggroup" => Thing::LogGroup,
                "bucket" => Thing::Bucket,
                _ => return None,
            })
        };
        if let Some(of) = kind.strip_prefix("ids:").and_then(thing) {
            return Value::Items(of);
        }
        match kind {
            "key" => Value::Arn(Thing::Key),
            "policy" => Value::Arn(Thing::Policy),
            "secretarn" => Value::Arn(Thing::Secret),
            "rolearn" => Value::Arn(Thing::Role),
            "functionarn" => Value::Arn(Thing::Function),
            "trailarn" => Value::Arn(Thing::Trail),
            "databasearn" => Value::Arn(Thing::Database),
            _ => thing(kind).map_or(Value::Made(kind), Value::Id),
        }
    }
}

/// Who asks, when, in which world: what values depend on.
pub struct Asking<'a> {
    pub principal: &'a Principal,
    pub sizes: &'a Sizes,
    pub at: Micros,
}

/// A request as written so far, and what it turned out to be about.
#[derive(Default)]
pub struct Asked {
    pub text: String,
    /// What `resources` lists: each thing by ARN.
    pub about: Vec<(Thing, String)>,
    pub bucket: Option<String>,
}

impl Asking<'_> {
    /// Writes `{"member":value,...}`, or `null` for a call without members.
    pub fn put(&self, rng: &mut SmallRng, members: &[(&'static str, Value)]) -> Asked {
        let mut asked = Asked { text: String::with_capacity(256), ..Asked::default() };
        if members.is_empty() {
            asked.text.push_str("null");
            return asked;
        }
        for (n, (member, value)) in members.iter().enumerate() {
            put!(&mut asked.text, r#"{}"{member}":"#, if n == 0 { '{' } else { ',' });
            self.put_value(rng, &mut asked, *value);
        }
        asked.text.push('}');
        asked
    }

    /// One of the 200,000 things, of which a principal deals with some more than with others.
    fn number(&self, rng: &mut SmallRng, thing: Thing) -> u64 {
        let of_all = match thing {
            Thing::Bucket => self.sizes.buckets,
            // A user asks for itself.
            Thing::User if self.principal.kind == PrincipalKind::IamUser => return self.principal.number,
            Thing::Role | Thing::User | Thing::Policy | Thing::Profile => self.sizes.principals,
            Thing::Trail => 40,
            Thing::Key | Thing::Database | Thing::LogGroup => self.sizes.arns / 100,
            _ => self.sizes.arns / 8,
        };
        if let Some(few) = self.habit(thing) {
            return (mix(0x94 ^ (thing as u64) << 8, self.principal.number) + rng.random_range(0..few)) % of_all;
        }
        let own = zipf_of(rng, of_all, 0.9);
        // Everyone has favourites of his own.
        if chance(rng, 60.0) { own } else { (own + self.principal.number * 7_919) % of_all }
    }

    /// How many things of a kind are the principal's own, if it never deals with others: an application has a few
    /// secrets, keys, buckets and parameters, and a program with a long-lived key no more.
    fn habit(&self, thing: Thing) -> Option<u64> {
        let Principal { duty, kind, number, .. } = self.principal;
        let steady = matches!(duty, Some(Duty::Workload)) || *kind == PrincipalKind::IamUser;
        match thing {
            _ if !steady => None,
            Thing::Secret => Some(1 + number % 2),
            Thing::Key | Thing::Role => Some(2),
            Thing::Bucket | Thing::Database | Thing::Function => Some(3),
            Thing::Parameter => Some(6),
            _ => None,
        }
    }

    fn arn(&self, thing: Thing, number: u64) -> String {
        thing.arn(number, self.principal.region, &self.principal.account)
    }

    fn put_value(&self, rng: &mut SmallRng, asked: &mut Asked, value: Value) {
        match value {
            Value::Id(Thing::Bucket) => {
                let number = self.number(rng, Thing::Bucket);
                let bucket = Thing::Bucket.id(number);
                put!(&mut asked.text, r#""{bucket}""#);
                asked.about.push((Thing::Bucket, self.arn(Thing::Bucket, number)));
                asked.bucket = Some(bucket);
            }
            Value::Id(thing) => {
                let number = self.number(rng, thing);
                put!(&mut asked.text, r#""{}""#, thing.id(number));
                if matches!(thing, Thing::Parameter) {
                    asked.about.push((thing, self.arn(thing, number)));
                }
            }
            Value::Arn(thing) => {
                let arn = self.arn(thing, self.number(rng, thing));
                put!(&mut asked.text, r#""{arn}""#);
                if matches!(thing, Thing::Key | Thing::Secret | Thing::Role) {
                    asked.about.push((thing, arn));
                }
            }
            Value::Items(thing) => {
                let member = match thing {
                    Thing::Vpc => "vpcId",
                    Thing::Subnet => "subnetId",
                    Thing::SecurityGroup => "groupId",
                    Thing::RouteTable => "routeTableId",
                    Thing::InternetGateway => "internetGatewayId",
                    Thing::NatGateway => "natGatewayId",
                    Thing::Interface => "networkInterfaceId",
                    Thing::Volume => "volumeId",
                    Thing::Snapshot => "snapshotId",
                    _ => "id",
                };
                self.put_items(rng, &mut asked.text, member, thing);
            }
            Value::Word(word) => put!(&mut asked.text, r#""{word}""#),
            Value::Made(kind) => self.put_made(rng, asked, kind),
        }
    }

    fn put_items(&self, rng: &mut SmallRng, out: &mut String, member: &str, thing: Thing) {
        out.push_str(r#"{"items":["#);
        for n in 0..zipf_of(rng, 6, 1.8) + 1 {
            let comma = if n == 0 { "" } else { "," };
            put!(out, r#"{comma}{{"{member}":"{}"}}"#, thing.id(self.number(rng, thing)));
        }
        out.push_str("]}");
    }

    fn put_made(&self, rng: &mut SmallRng, asked: &mut Asked, kind: &str) {
        let Principal { account, region, ip, session, .. } = self.principal;
        let bucket = asked.bucket.clone();
        let out = &mut asked.text;
        match kind {
            "bool" => put!(out, "{}", rng.random::<bool>()),
            // What is chosen for throw-away environments only.
            "seldom" => put!(out, "{}", chance(rng, 1.0)),
            "int" => put!(out, "{}", pick(rng, &[1, 3, 7, 8, 20, 30, 100, 128, 256, 512])),
            "max" => put!(out, "{}", pick(rng, &[10, 20, 25, 50, 50, 50, 100, 1000])),
            "seconds" => put!(out, "{}", pick(rng, &[900, 3600, 3600, 3600, 43_200])),
            "empty" => out.push_str("{}"),
            "emptylist" => out.push_str("[]"),
            "flag" => out.push_str(r#""""#),
            "account" => put!(out, r#""{account}""#),
            "ip" => put!(out, r#""{ip}""#),
            "hostname" => put!(out, r#""{}""#, host(rng.random_range(0..self.sizes.hosts))),
            "host" => {
                let bucket = bucket.unwrap_or_else(|| Thing::Bucket.id(0));
                put!(out, r#""{bucket}.s3.{region}.amazonaws.com""#);
            }
            "s3control" => put!(out, r#""{account}.s3-control.{region}.amazonaws.com""#),
            "objectkey" => {
                let key = object_key(zipf_of(rng, self.sizes.object_keys, 0.8), self.at);
                put!(out, r#""{key}""#);
                let bucket = bucket.unwrap_or_default();
                asked.about.insert(0, (Thing::Bucket, format!("arn:aws:s3:::{bucket}/{key}")));
            }
            "fresh" => put!(out, r#""{}""#, uuid(rng)),
            "marker" => {
                out.push('"');
                put_base64(out, rng, 40);
                out.push('"');
            }
            "algorithm" => out.push_str(r#""SYMMETRIC_DEFAULT""#),
            "spec" => out.push_str(r#""AES_256""#),
            "context" => self.put_context(rng, out),
            "engine" => put!(out, r#""{}""#, pick(rng, &["postgres", "mysql", "aurora-postgresql", "mariadb"])),
            "version" => {
                put!(out, r#""{}.{}.{}""#, rng.random_range(3..17), rng.random_range(0..9), rng.random_range(0..40))
            }
            "session" => put!(out, r#""{session}""#),
            "time" => put!(out, r#""{}""#, format_micros(self.at - rng.random_range(0..86_400) * 1_000_000)),
            "period" => put!(out, r#"{{"Start":"{0}","End":"{0}"}}"#, &format_micros(self.at)[..10]),
            "zone" => put!(out, r#""{region}{}""#, pick(rng, &['a', 'b', 'c'])),
            "itype" => {
                put!(out, r#""{}""#, pick(rng, &["t3.medium", "m6i.large", "m7g.xlarge", "c6i.2xlarge", "r6g.large"]))
            }
            "cidr" => put!(out, r#""10.{}.{}.0/24""#, rng.random_range(0..200), rng.random_range(0..255)),
            "policyname" => put!(out, r#""{}-inline-{}""#, team(rng.next_u64()), rng.random_range(0..90)),
            "trust" | "document" => self.put_document(rng, out, kind == "trust"),
            "monitoring" => out.push_str(r#"{"enabled":false}"#),
            "attributes" => out.push_str(r#"{"items":[{"attributeName":"supported-platforms"}]}"#),
            "statefilter" => out.push_str(
                r#"{"items":[{"name":"opt-in-status","valueSet":{"items":[{"value":"opt-in-not-required"}]}}]}"#,
            ),
            "instanceattribute" => {
                const ASKED: [&str; 10] = [
                    "instanceType",
                    "disableApiTermination",
                    "instanceInitiatedShutdownBehavior",
                    "groupSet",
                    "blockDeviceMapping",
                    "ebsOptimized",
                    "rootDeviceName",
                    "sourceDestCheck",
                    "enaSupport",
                    "userData",
                ];
                put!(out, r#""{}""#, pick(rng, &ASKED));
            }
            "archfilter" => {
                out.push_str(r#"{"items":[{"name":"architecture","valueSet":{"items":[{"value":"x86_64"}]}}]}"#)
            }
            "owners" => out.push_str(r#"{"items":[{"owner":"amazon"}]}"#),
            "idfilter" => {
                let (name, thing) = pick(
                    rng,
                    &[
                        ("vpc-id", Thing::Vpc),
                        ("vpc-id", Thing::Vpc),
                        ("subnet-id", Thing::Subnet),
                        ("group-id", Thing::SecurityGroup),
                        ("instance-id", Thing::Instance),
                    ],
                );
                match chance(rng, 55.0) {
                    true => out.push_str("{}"),
                    false => put!(
                        out,
                        r#"{{"items":[{{"name":"{name}","valueSet":{{"items":[{{"value":"{}"}}]}}}}]}}"#,
                        thing.id(self.number(rng, thing))
                    ),
                }
            }
            "namefilter" => put!(
                out,
                r#"[{{"key":"Name","option":"Equals","values":["{}"]}}]"#,
                Thing::Parameter.id(self.number(rng, Thing::Parameter))
            ),
            "eventfilter" => put!(
                out,
                r#"{{"startTimes":[{{"from":"{}"}}],"eventStatusCodes":["open","upcoming"]}}"#,
                format_micros(self.at - 604_800_000_000)
            ),
            "parameters" => {
                let (one, two) = (self.number(rng, Thing::Parameter), self.number(rng, Thing::Parameter));
                put!(out, r#"["{}","{}"]"#, Thing::Parameter.id(one), Thing::Parameter.id(two));
            }
            "instancelist" => put!(out, r#"["{}"]"#, Thing::Instance.id(self.number(rng, Thing::Instance))),
            "instances" => self.put_items(rng, out, "instanceId", Thing::Instance),
            "amis" => self.put_items(rng, out, "imageId", Thing::Image),
            "groups" => self.put_items(rng, out, "groupId", Thing::SecurityGroup),
            "launch" => put!(
                out,
                r#"{{"items":[{{"imageId":"{}","minCount":1,"maxCount":1}}]}}"#,
                Thing::Image.id(self.number(rng, Thing::Image))
            ),
            "profileset" => put!(out, r#"{{"name":"{}"}}"#, Thing::Profile.id(self.number(rng, Thing::Profile))),
            "rtbassoc" => {
                out.push_str(r#""rtbassoc-"#);
                crate::random::put_hex(out, rng, 17);
                out.push('"');
            }
            "permissions" => put!(
                out,
                r#"{{"items":[{{"ipProtocol":"tcp","fromPort":{0},"toPort":{0},"groups":{{}},"ipRanges":{{"items":[{{"cidrIp":"10.{1}.0.0/16"}}]}},"ipv6Ranges":{{}},"prefixListIds":{{}}}}]}}"#,
                pick(rng, &[443, 5432, 6379, 8080, 9092]),
                rng.random_range(0..200)
            ),
            "tags" => put!(
                out,
                r#"{{"items":[{{"resourceType":"instance","tags":[{{"key":"team","value":"{}"}},{{"key":"release","value":"r{}"}}]}}]}}"#,
                team(rng.next_u64()),
                rng.random_range(100..900)
            ),
            "tagset" => self.put_tags(rng, out),
            other => unreachable!("calls.txt has no kind `{other}`"),
        }
    }

    /// What the key was used for: what its user deals with.
    fn put_context(&self, rng: &mut SmallRng, out: &mut String) {
        let thing = match (self.principal.kind, self.principal.domain) {
            (PrincipalKind::Service, _) => pick(rng, &[Thing::Volume, Thing::Bucket, Thing::Bucket]),
            (_, Domain::Parameters) => Thing::Parameter,
            (_, Domain::Secrets) => Thing::Secret,
            (_, Domain::Storage) => Thing::Bucket,
            _ => pick(rng, &[Thing::Parameter, Thing::Bucket, Thing::Volume]),
        };
        let number = self.number(rng, thing);
        match thing {
            Thing::Parameter => put!(out, r#"{{"PARAMETER_ARN":"{}"}}"#, self.arn(thing, number)),
            Thing::Bucket => put!(out, r#"{{"aws:s3:arn":"{}"}}"#, self.arn(thing, number)),
            Thing::Secret => put!(
                out,
                r#"{{"SecretARN":"{}","SecretVersionId":"{}"}}"#,
                self.arn(thing, number),
                entity_uuid(0x95, number)
            ),
            _ => put!(out, r#"{{"aws:ebs:id":"{}"}}"#, thing.id(number)),
        }
    }

    /// Tags that are added later: by storage drivers and autoscalers their own, by pipelines those of releases.
    fn put_tags(&self, rng: &mut SmallRng, out: &mut String) {
        let (key, value) = match self.principal.duty {
            Some(Duty::Platform) if rng.random::<bool>() => ("ebs.csi.aws.com/cluster", "true".to_owned()),
            Some(Duty::Platform) => ("karpenter.sh/nodeclaim", format!("default-{}", rng.random_range(10_000..99_999))),
            _ if chance(rng, 20.0) => ("team", team(self.principal.number).to_owned()),
            _ => ("Name", format!("{}-{}", self.principal.name, rng.random_range(1..40))),
        };
        put!(
            out,
            r#"{{"items":[{{"key":"{key}","value":"{value}"}},{{"key":"release","value":"r{}"}}]}}"#,
            rng.random_range(100..900)
        );
    }

    /// A policy document, as text inside of JSON.
    fn put_document(&self, rng: &mut SmallRng, out: &mut String, trust: bool) {
        if trust {
            let service = pick(rng, &["ec2", "lambda", "ecs-tasks", "states", "pods.eks"]);
            put!(
                out,
                r#""{{\"Version\":\"2012-10-17\",\"Statement\":[{{\"Effect\":\"Allow\",\"Principal\":{{\"Service\":\"{service}.amazonaws.com\"}},\"Action\":\"sts:AssumeRole\"}}]}}""#
            );
            return;
        }
        let bucket = self.arn(Thing::Bucket, self.number(rng, Thing::Bucket));
        put!(
            out,
            r#""{{\"Version\":\"2012-10-17\",\"Statement\":[{{\"Effect\":\"Allow\",\"Action\":[\"s3:GetObject\",\"s3:ListBucket\"],\"Resource\":[\"{bucket}\",\"{bucket}/*\"]}}]}}""#
        );
    }
}
