//! What is said between Lifeboat and its processes in containers: how they come up, and what programs they start.
//! A program's standard streams travel with the question, so that its words never pass through the engine.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest question: arguments and environment of a program.
const LARGEST: u32 = 16 << 20;
/// Standard streams of a program.
const STREAMS: usize = 3;

/// A process of the sandbox stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Up {
    /// Its namespaces: kind and name in `/proc`.
    pub(super) namespaces: BTreeMap<String, String>,
}

/// What an agent is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    /// Whether this file is there.
    Has(PathBuf),
    /// To run a program on the streams that come along.
    Run(Run),
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// Its file.
    pub(super) program: OsString,
    /// Its arguments.
    pub(super) arguments: Vec<OsString>,
    /// Its whole environment.
    pub(super) environment: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub(super) directory: PathBuf,
}

/// What an agent answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// Whether the file is there.
    Has(bool),
    /// The program ended, or could not be started (then its standard error says why): its exit code.
    Ended(u8),
}

/// A signal for the program that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Forwarded {
    /// Its number.
    pub(super) signal: i32,
}

/// Sends a question with the streams of a program.
pub(super) fn ask(stream: &mut UnixStream, question: &Ask, streams: &[BorrowedFd<'_>]) -> std::io::Result<()> {
    let text = serde_json::to_vec(question)?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= LARGEST);
    let length = length.ok_or_else(|| std::io::Error::other("too many arguments"))?.to_ne_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    if !streams.is_empty() && !along.push(SendAncillaryMessage::ScmRights(streams)) {
        return Err(std::io::Error::other("too many streams"));
    }
    let sent = sendmsg(stream.as_fd(), &[IoSlice::new(&length)], &mut along, SendFlags::empty())?;
    stream.write_all(&length[sent..])?;
    stream.write_all(&text)
}

/// Receives a question and the streams that came with it.
pub(super) fn asked(stream: &mut UnixStream) -> std::io::Result<(Ask, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    let mut length = [0; 4];
    let received =
        recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut length)], &mut along, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let streams = along.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(streams) => Some(streams),
        _ => None,
    });
    let streams = streams.flatten().collect();
    stream.read_exact(&mut length[received..])?;
    let length = u32::from_ne_bytes(length);
    if length > LARGEST {
        return Err(std::io::Error::other("the question is too long"));
    }
    let mut text = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut text)?;
    Ok((serde_json::from_slice(&text)?, streams))
}

/// Says something in one line.
pub(super) fn say(mut stream: &UnixStream, what: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_string(what)?;
    line.push('\n');
    stream.write_all(line.as_bytes())
}

/// What is said next; `None` at the end.
pub(super) fn heard<T: DeserializeOwned>(reader: &mut BufReader<UnixStream>) -> std::io::Result<Option<T>> {
    let mut line = String::new();
    match reader.read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_str(&line)?)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_program_travels_with_its_streams_and_any_bytes() {
        let (mut here, mut there) = UnixStream::pair().expect("a pair");
        let file = tempfile::tempfile().expect("a file");
        let question = Ask::Run(Run {
            program: "/bin/sh".into(),
            arguments: vec![OsString::from_vec(vec![b'x', 0xff]), "y".repeat(100_000).into()],
            environment: vec![("LC_ALL".into(), "C".into())],
            directory: "/".into(),
        });
        let sent = question.clone();
        let sending = std::thread::spawn(move || {
            ask(&mut here, &sent, &[file.as_fd(), file.as_fd(), file.as_fd()]).expect("sent");
            here
        });
        let (received, streams) = asked(&mut there).expect("received");
        assert_eq!((received, streams.len()), (question, 3));
        let here = sending.join().expect("joined");
        std::fs::File::from(streams.into_iter().next().expect("one")).write_all(b"through").expect("written");
        say(&there, &Answer::Ended(7)).expect("said");
        drop(there);
        let mut reader = BufReader::new(here);
        assert_eq!(heard::<Answer>(&mut reader).expect("heard"), Some(Answer::Ended(7)));
        assert_eq!(heard::<Answer>(&mut reader).expect("heard"), None);
    }
}
