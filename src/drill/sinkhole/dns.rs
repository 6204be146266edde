//! As much of DNS (RFC 1035) as answering every question takes: an address for A, nothing for anything else.

use std::net::Ipv4Addr;

const HEADER: usize = 12;
const A: u16 = 1;
const NAMES_OF_TYPES: [(u16, &str); 9] =
    [(1, "A"), (2, "NS"), (5, "CNAME"), (12, "PTR"), (15, "MX"), (16, "TXT"), (28, "AAAA"), (33, "SRV"), (65, "HTTPS")];

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) name: String,
    kind: u16,
    /// Where the question ends in its packet.
    end: usize,
}

impl Question {
    /// The question of a packet, if it is one.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        let asks = packet.get(2)? & 0b1111_1000 == 0;
        let questions = u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]);
        if !asks || questions == 0 {
            return None;
        }
        let (mut at, mut labels) = (HEADER, Vec::new());
        loop {
            let length = usize::from(*packet.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            // A question has nothing before it that it could refer to, and a label no more than 63 bytes.
            if length > 63 || labels.len() > 127 {
                return None;
            }
            let label = packet.get(at..at + length)?;
            labels.push(
                label.iter().map(|b| if b.is_ascii_graphic() { char::from(*b) } else { '?' }).collect::<String>(),
            );
            at += length;
        }
        let kind = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
        packet.get(at + 3)?;
        Some(Self { name: labels.join("."), kind, end: at + 4 })
    }

    /// Whether it asks for an IPv4 address.
    pub(super) fn wants_address(&self) -> bool {
        self.kind == A
    }

    /// `A hooks.example.com`.
    pub(super) fn in_words(&self) -> String {
        match NAMES_OF_TYPES.iter().find(|(kind, _)| *kind == self.kind) {
            Some((_, word)) => format!("{word} {}", self.name),
            None => format!("type {} {}", self.kind, self.name),
        }
    }

    /// The answer to the packet that the question was read from; without an address, an empty one.
    pub(super) fn answer(&self, packet: &[u8], address: Option<Ipv4Addr>) -> Vec<u8> {
        let mut answer = packet[..2].to_vec();
        // An answer, recursion as desired and available, no error.
        answer.extend([0x80 | (packet[2] & 1), 0x80, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
        answer.extend_from_slice(&packet[HEADER..self.end]);
        if let Some(address) = address {
            // The name of the question, type A, class IN, one minute, four bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(address.octets());
        }
        answer
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A packet that asks for `name`.
    pub(in super::super) fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            packet.push(u8::try_from(label.len()).expect("a short label"));
            packet.extend(label.as_bytes());
        }
        packet.push(0);
        packet.extend([kind.to_be_bytes(), [0, 1]].concat());
        packet
    }

    #[test]
    fn questions_are_read_and_answered() {
        let packet = query("smtp.example.com", 1);
        let question = Question::read(&packet).expect("a question");
        assert_eq!(question.in_words(), "A smtp.example.com");
        let answer = question.answer(&packet, Some(Ipv4Addr::new(198, 18, 0, 1)));
        assert_eq!((&answer[..2], &answer[6..8]), (&[0x12, 0x34][..], &[0, 1][..]));
        assert_eq!(answer[answer.len() - 4..], [198, 18, 0, 1]);
        let six = query("smtp.example.com", 28);
        let question = Question::read(&six).expect("a question");
        assert!(!question.wants_address());
        assert_eq!(question.answer(&six, None)[6..8], [0, 0], "an empty answer: the caller takes IPv4");
    }

    #[test]
    fn nonsense_is_not_a_question() {
        let packet = query("a.example", 1);
        for length in 0..packet.len() {
            assert_eq!(Question::read(&packet[..length]), None, "{length}");
        }
        let mut answer = packet.clone();
        answer[2] |= 0x80;
        assert_eq!(Question::read(&answer), None);
        let mut pointer = packet;
        pointer[12] = 0xc0;
        assert_eq!(Question::read(&pointer), None);
    }
}
