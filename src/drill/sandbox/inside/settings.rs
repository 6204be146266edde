//! Files of `/etc` that a sandbox has of its own: who is known there, and that names are asked of the sinkhole.

/// Name below `/etc` and content, for a sandbox whose programs run as `account`.
pub(in crate::drill::sandbox) fn files(account: &str, uid: u32, gid: u32) -> [(&'static str, String); 6] {
    [
        ("passwd", format!("root:x:0:0::/:/usr/sbin/nologin\n{account}:x:{uid}:{gid}::/tmp:/bin/sh\n")),
        ("group", format!("root:x:0:\n{account}:x:{gid}:\n")),
        ("hosts", "127.0.0.1 localhost drill\n::1 localhost\n".to_owned()),
        ("hostname", "drill\n".to_owned()),
        ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n".to_owned()),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n".to_owned(),
        ),
    ]
}
