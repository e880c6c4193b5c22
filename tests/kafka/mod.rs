//! A real Apache Kafka for tests: one KRaft node on loopback, from the jars that `pom.xml` names, on the Java that is
//! installed. The jars are fetched once into `$STAKEOUT_KAFKA_HOME` or `~/.cache/stakeout/kafka-<version>`.
//! Topics are never created automatically. Dropping the broker kills it.

mod feed;
mod group;
mod odd;
mod producer;

pub use group::Foreign;

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

const POM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/pom.xml");
const READY_TIMEOUT: Duration = Duration::from_secs(90);

pub struct Broker {
    dir: TempDir,
    jars: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Broker {
    pub fn start() -> Broker {
        let jars = jars();
        let dir = tempfile::tempdir().unwrap();
        let (port, controller_port) = free_ports();
        fs::write(dir.path().join("server.properties"), properties(dir.path(), port, controller_port)).unwrap();
        fs::write(dir.path().join("log4j2.properties"), LOGGING).unwrap();
        let mut broker = Broker { dir, jars, port, process: None };
        let mut format = broker.java("kafka.tools.StorageTool");
        // Any UUID in Kafka's URL-safe base64 does: each broker has a folder of its own.
        format.args(["format", "--standalone", "-t", "c3Rha2VvdXQtdGVzdC1rZg", "-c"]);
        let output = format.arg(broker.dir.path().join("server.properties")).output().unwrap();
        assert!(output.status.success(), "format failed: {output:?}");
        broker.launch();
        broker
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn create_topic(&self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, &[]);
    }

    pub fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let created = block_on(self.admin().create_topics([&topic], &AdminOptions::new())).unwrap();
        assert_eq!(created, [Ok(name.to_owned())]);
        self.wait_for_leaders(name, partitions);
    }

    /// Adds partitions up to `partitions`.
    pub fn grow_topic(&self, name: &str, partitions: i32) {
        let more = NewPartitions::new(name, partitions as usize);
        let grown = block_on(self.admin().create_partitions([&more], &AdminOptions::new())).unwrap();
        assert_eq!(grown, [Ok(name.to_owned())]);
        self.wait_for_leaders(name, partitions);
    }

    pub fn delete_topic(&self, name: &str) {
        let deleted = block_on(self.admin().delete_topics(&[name], &AdminOptions::new())).unwrap();
        assert_eq!(deleted, [Ok(name.to_owned())]);
    }

    fn wait_for_leaders(&self, topic: &str, partitions: i32) {
        let consumer = self.client();
        wait_until("the topic has leaders", || {
            let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
            let led = metadata.topics().first()?.partitions().iter().filter(|p| p.leader() >= 0).count();
            (led == partitions as usize).then_some(())
        });
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.bootstrap()).create().unwrap()
    }

    /// Orderly, as on `SIGTERM`; data and ports are kept.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        Command::new("kill").arg(process.id().to_string()).status().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while process.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                process.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut server = self.java("kafka.Kafka");
        server.arg(self.dir.path().join("server.properties"));
        server.stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(server.spawn().unwrap());
        let consumer = self.client();
        wait_until("the broker answers", || {
            if let Some(status) = self.process.as_mut().unwrap().try_wait().unwrap() {
                panic!("kafka ended with {status}:\n{}", fs::read_to_string(self.log_path()).unwrap());
            }
            let metadata = consumer.fetch_metadata(None, Duration::from_secs(1)).ok()?;
            (!metadata.brokers().is_empty()).then_some(())
        });
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("broker.log")
    }

    fn client(&self) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap()).set("reconnect.backoff.max.ms", "500");
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg).create().unwrap()
    }

    fn java(&self, main: &str) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xmx512m", "-XX:+UseSerialGC", "-cp"]).arg(self.jars.join("*"));
        java.arg(format!("-Dlog4j2.configurationFile={}", self.dir.path().join("log4j2.properties").display()));
        java.arg(main).stdin(Stdio::null()).current_dir(self.dir.path());
        java
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

const LOGGING: &str = "\
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1} %m%n
";

fn properties(dir: &Path, port: u16, controller_port: u16) -> String {
    format!(
        "\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
log.dirs={}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
",
        dir.join("data").display()
    )
}

/// Two ports that were free a moment ago.
fn free_ports() -> (u16, u16) {
    let (a, b) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    (a.local_addr().unwrap().port(), b.local_addr().unwrap().port())
}

/// Tests run in parallel threads and processes: fetched into a folder aside, then renamed, so that a folder that is
/// there is complete.
fn jars() -> PathBuf {
    static FETCH: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = FETCH.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let pom = include_str!("pom.xml");
    let (_, version) = pom.split_once("<kafka.version>").unwrap();
    let (version, _) = version.split_once('<').unwrap();
    let home = std::env::var_os("STAKEOUT_KAFKA_HOME").map(PathBuf::from).unwrap_or_else(|| {
        Path::new(&std::env::var_os("HOME").expect("HOME or STAKEOUT_KAFKA_HOME is set")).join(".cache/stakeout")
    });
    let jars = home.join(format!("kafka-{version}"));
    // The marker holds what was fetched: another pom fetches anew.
    let complete = |jars: &Path| fs::read_to_string(jars.join("complete.xml")).is_ok_and(|fetched| fetched == pom);
    if complete(&jars) {
        return jars;
    }
    let aside = home.join(format!("kafka-{version}.{}", std::process::id()));
    let mut mvn = Command::new("mvn");
    mvn.args(["-q", "-B", "-f", POM, "dependency:copy-dependencies", "-DincludeScope=runtime"]);
    let output = mvn.arg(format!("-DoutputDirectory={}", aside.display())).output().expect("mvn is installed");
    assert!(output.status.success(), "cannot fetch kafka: {}", String::from_utf8_lossy(&output.stdout));
    fs::write(aside.join("complete.xml"), pom).unwrap();
    let _ = fs::remove_dir_all(&jars);
    if let Err(error) = fs::rename(&aside, &jars) {
        assert!(complete(&jars), "{}: {error}", jars.display());
        fs::remove_dir_all(&aside).unwrap();
    }
    jars
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Asks until there is an answer.
pub fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < READY_TIMEOUT, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
