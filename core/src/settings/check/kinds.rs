//! What a receiver needs for its type: a webhook's address and signature, PagerDuty's key. Keys
//! that belong to another type are mistakes, not ignored.

use super::{Checker, table};
use crate::settings::mistake::Mistake;
use crate::settings::place::join;
use crate::settings::raw::{Raw, RawReceiver};
use crate::settings::value::{ReceiverType, Region, Val};
use crate::settings::{ReceiverKind, Secret, signing, url};

/// A rotation needs two; a header with more signatures than these nobody checks.
const MAX_SIGNING_SECRETS: usize = 4;

/// The length of an integration key of PagerDuty's Events API v2.
const ROUTING_KEY_CHARS: usize = 32;

/// The Events API for accounts in the United States, and for those in the EU.
const PAGERDUTY_US: &str = "https://events.pagerduty.com";
const PAGERDUTY_EU: &str = "https://events.eu.pagerduty.com";

impl Checker<'_> {
    pub(super) fn kind(
        &mut self,
        raw: &Raw,
        path: &str,
        receiver: &RawReceiver,
        kind: ReceiverType,
    ) -> Option<ReceiverKind> {
        self.keys_of_other_types(path, receiver, kind);
        match kind {
            ReceiverType::Webhook => self.webhook(path, receiver),
            ReceiverType::Pagerduty => self.pagerduty(raw, path, receiver),
        }
    }

    fn keys_of_other_types(&mut self, path: &str, receiver: &RawReceiver, kind: ReceiverType) {
        use ReceiverType::{Pagerduty, Webhook};
        let written = [
            ("url", receiver.url.is_some(), Webhook),
            ("url_file", receiver.url_file.is_some(), Webhook),
            ("signing_secret", receiver.signing_secret.is_some(), Webhook),
            ("signing_secret_file", receiver.signing_secret_file.is_some(), Webhook),
            ("signing_secret_files", receiver.signing_secret_files.is_some(), Webhook),
            ("routing_key", receiver.routing_key.is_some(), Pagerduty),
            ("routing_key_file", receiver.routing_key_file.is_some(), Pagerduty),
            ("region", receiver.region.is_some(), Pagerduty),
            ("base_url", receiver.base_url.is_some(), Pagerduty),
        ];
        for (key, is_written, owner) in written {
            if is_written && owner != kind {
                let [owner, kind] = [owner, kind].map(ReceiverType::word);
                let message =
                    format!("belongs to receivers of type \"{owner}\"; this one is a \"{kind}\"");
                self.mistake(Mistake::new(join(path, key), message));
            }
        }
    }

    fn webhook(&mut self, path: &str, receiver: &RawReceiver) -> Option<ReceiverKind> {
        let files = receiver.url_file.as_ref();
        let address = self.secret(path, ["url", "url_file"], receiver.url.as_ref(), files, |url| {
            url::fault(url).map(|fault| format!("cannot be posted to: {fault}"))
        });
        let signing_secrets = self.signing_secrets(path, receiver);
        Some(ReceiverKind::Webhook { url: address?, signing_secrets: signing_secrets? })
    }

    fn signing_secrets(&mut self, path: &str, receiver: &RawReceiver) -> Option<Vec<Secret>> {
        let single = receiver.signing_secret_file.iter();
        let files: Vec<_> =
            single
                .map(|file| (join(path, "signing_secret_file"), file))
                .chain(
                    receiver.signing_secret_files.iter().flatten().enumerate().map(
                        |(index, file)| (format!("{path}.signing_secret_files[{index}]"), file),
                    ),
                )
                .collect();
        let mut secrets: Vec<(String, Option<Secret>)> = Vec::new();
        if let Some(Val(secret)) = &receiver.signing_secret {
            secrets.push((join(path, "signing_secret"), Some(secret.clone())));
        }
        for (key, Val(file)) in files {
            let secret = self.secret_file(&key, file);
            secrets.push((key, secret));
        }
        if secrets.len() > MAX_SIGNING_SECRETS {
            let message =
                format!("expected at most {MAX_SIGNING_SECRETS} secrets, found {}", secrets.len());
            self.mistake(Mistake::new(join(path, "signing_secret_files"), message));
        }
        secrets
            .into_iter()
            .map(|(key, secret)| {
                let secret = secret?;
                let Some(fault) = signing::fault(secret.expose()) else { return Some(secret) };
                let message = format!("cannot sign: {fault}");
                self.mistake(Mistake::new(key, message).hint(
                    "Standard Webhooks secrets are \"whsec_\" and the Base64 of 24 to 64 bytes",
                ));
                None
            })
            .collect()
    }

    fn pagerduty(&mut self, raw: &Raw, path: &str, receiver: &RawReceiver) -> Option<ReceiverKind> {
        let keys = ["routing_key", "routing_key_file"];
        let files = receiver.routing_key_file.as_ref();
        let routing_key = self.secret(path, keys, receiver.routing_key.as_ref(), files, |key| {
            let length = key.chars().count();
            if length != ROUTING_KEY_CHARS {
                return Some(format!("expected a key of 32 characters, found one of {length}"));
            }
            let plain = key.chars().all(|c| c.is_ascii_alphanumeric());
            (!plain).then(|| "expected a key of letters and digits".to_owned())
        });
        let base_url = self.base_url(raw, path, receiver);
        Some(ReceiverKind::Pagerduty { routing_key: routing_key?, base_url: base_url? })
    }

    fn base_url(&mut self, raw: &Raw, path: &str, receiver: &RawReceiver) -> Option<String> {
        if let Some(Val(base)) = &receiver.base_url {
            if receiver.region.is_some() {
                let message = "stands beside `region`, which says the same";
                self.mistake(
                    Mistake::new(join(path, "base_url"), message).hint("keep one of them"),
                );
            }
            return Some(base.0.clone());
        }
        let both = table(raw.receiver_defaults.as_ref());
        let default = table(both.pagerduty.as_ref()).region;
        let region = receiver.region.as_ref().or(default.as_ref());
        Some(match self.required("receiver_defaults.pagerduty.region", region)? {
            Region::Us => PAGERDUTY_US.to_owned(),
            Region::Eu => PAGERDUTY_EU.to_owned(),
        })
    }

    /// A secret that is written where it is needed or in a file, and is there exactly once.
    fn secret(
        &mut self,
        path: &str,
        [key, file_key]: [&str; 2],
        written: Option<&Val<Secret>>,
        file: Option<&Val<std::path::PathBuf>>,
        fault: impl Fn(&str) -> Option<String>,
    ) -> Option<Secret> {
        let (at, secret) = match (written, file) {
            (Some(_), Some(_)) => {
                let message = format!("stands beside `{key}`; one of them is enough");
                self.mistake(Mistake::new(join(path, file_key), message));
                return None;
            }
            (None, None) => {
                if self.was_spoken_of(&join(path, file_key)) {
                    return None;
                }
                let hint = format!("set `{key}`, or `{file_key}` to a file that holds it");
                self.missing(Mistake::new(join(path, key), "missing").hint(hint));
                return None;
            }
            (Some(Val(secret)), None) => (join(path, key), secret.clone()),
            (None, Some(Val(file))) => {
                let at = join(path, file_key);
                let secret = self.secret_file(&at, file)?;
                (at, secret)
            }
        };
        let Some(fault) = fault(secret.expose()) else { return Some(secret) };
        self.mistake(Mistake::new(at, fault));
        None
    }

    fn was_spoken_of(&self, path: &str) -> bool {
        self.places.was_spoken_of(path)
    }
}
