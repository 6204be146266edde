//! Evidence.
use crate::vault::VerifyingKey;
/// t
#[derive(Debug, Clone, Default)]
pub struct Trust { /// k
 pub keys: Vec<TrustedKey> }
/// t
#[derive(Debug, Clone)]
pub struct TrustedKey { /// k
 pub key: VerifyingKey, /// n
 pub name: String }
