//! A mail to people: the worst first, what it means, what to do.

use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use secrecy::ExposeSecret;

use super::{Firing, Notification};
use crate::config::{Smtp, SmtpTls};
use crate::error::{ErrorKind, Result, ResultExt};

/// How long the server may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn tell(to: &[String], smtp: &Smtp, notification: &Notification<'_>) -> Result<()> {
    let message = message(to, smtp, notification)?;
    let what = || format!("the mail server {}:{} did not take the mail", smtp.host, smtp.port);
    transport(smtp)?.send(message).await.map(drop).or_err(ErrorKind::Source, what)
}

fn transport(smtp: &Smtp) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
    let parameters = || {
        TlsParameters::new(smtp.host.clone())
            .or_err(ErrorKind::Internal, || format!("cannot set up TLS for the mail server {}", smtp.host))
    };
    let tls = match smtp.tls {
        SmtpTls::Starttls => Tls::Required(parameters()?),
        SmtpTls::Tls => Tls::Wrapper(parameters()?),
        SmtpTls::None => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host)
        .port(smtp.port)
        .tls(tls)
        .timeout(Some(PATIENCE));
    if let Some((name, password)) = &smtp.login {
        let password = password.resolve()?.expose_secret().to_owned();
        builder = builder.credentials(Credentials::new(name.clone(), password));
    }
    Ok(builder.build())
}

fn message(to: &[String], smtp: &Smtp, notification: &Notification<'_>) -> Result<Message> {
    let mailbox = |address: &str| {
        address.parse::<Mailbox>().or_err(ErrorKind::Config, || format!("\"{address}\" is not an address of mail"))
    };
    let mut builder = Message::builder()
        .from(mailbox(&smtp.from)?)
        .date(notification.now.into())
        .subject(subject(notification))
        // RFC 3834: nobody's absence notice should answer.
        .header(AutoSubmitted)
        .header(ContentType::TEXT_PLAIN);
    for address in to {
        builder = builder.to(mailbox(address)?);
    }
    builder.body(body(notification)).or_err(ErrorKind::Internal, || "the mail cannot be put together".to_owned())
}

/// Says what it is about without being opened.
fn subject(notification: &Notification<'_>) -> String {
    let about = |firing: &Firing| {
        let place = firing.alert.key.environment.as_deref().unwrap_or("service");
        format!("{place}: {}", firing.alert.summary)
    };
    match (notification.firing, notification.resolved) {
        ([], [one]) => format!("[over] {}", about(one)),
        ([], several) => format!("[over] {} alerts of Lifeboat", several.len()),
        ([first, rest @ ..], _) => {
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            format!("[{}] {}{more}", first.alert.severity.word(), about(first))
        }
    }
    .chars()
    .map(|c| if c.is_control() { ' ' } else { c })
    .take(200)
    .collect()
}

fn body(notification: &Notification<'_>) -> String {
    let mut text = String::new();
    for firing in notification.firing {
        let alert = &firing.alert;
        let place = alert.key.environment.as_deref().unwrap_or("the service itself");
        text += &format!("{} in {place}: {}\n", alert.severity.word().to_uppercase(), alert.summary);
        if !alert.meaning.is_empty() {
            text += &format!("  this means: {}\n", alert.meaning);
        }
        for todo in &alert.todo {
            text += &format!("  what to do: {todo}\n");
        }
        text += &format!("  since {}\n\n", firing.since.format("%Y-%m-%d %H:%M:%S UTC"));
    }
    if !notification.resolved.is_empty() {
        text += "Over:\n";
        for firing in notification.resolved {
            let place = firing.alert.key.environment.as_deref().unwrap_or("the service itself");
            text += &format!("  {place}: {}\n", firing.alert.summary);
        }
        text.push('\n');
    }
    text + &format!(
        "-- \nLifeboat on {}, {}\n",
        notification.instance,
        notification.now.format("%Y-%m-%d %H:%M:%S UTC")
    )
}

/// `Auto-Submitted: auto-generated`.
#[derive(Clone)]
struct AutoSubmitted;

impl lettre::message::header::Header for AutoSubmitted {
    fn name() -> lettre::message::header::HeaderName {
        lettre::message::header::HeaderName::new_from_ascii_str("Auto-Submitted")
    }
    fn parse(_: &str) -> std::result::Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }
    fn display(&self) -> lettre::message::header::HeaderValue {
        lettre::message::header::HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}
