//! Counting line ends, and what an empty line is. Runs in the worker.

use memchr::{memchr, memchr_iter};

/// Line feeds in `bytes`.
pub(super) fn line_feeds(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}

/// CRLFs whose LF is in `bytes`; `before` is the byte in front of these. Every other LF becomes
/// one octet longer when it is sent.
pub(super) fn crlfs(before: Option<u8>, bytes: &[u8]) -> u64 {
    let straddling = u64::from(before == Some(b'\r') && bytes.first() == Some(&b'\n'));
    // Most mailboxes hold no CR at all, and to know that costs a fraction of counting pairs.
    let Some((_, with_cr)) = memchr(b'\r', bytes).and_then(|at| bytes.split_at_checked(at)) else {
        return straddling;
    };
    let Some((_, shifted)) = with_cr.split_first() else {
        return straddling;
    };
    // Counted in a byte for each run of 255, which compilers turn into vector instructions: a
    // file where every line ends in CRLF costs no more than one without.
    const RUN: usize = 255;
    let pairs: u64 = with_cr
        .chunks(RUN)
        .zip(shifted.chunks(RUN))
        .map(|(first, second)| {
            let run = first.iter().zip(second);
            u64::from(run.map(|(a, b)| u8::from(*a == b'\r') & u8::from(*b == b'\n')).sum::<u8>())
        })
        .sum();
    straddling + pairs
}

/// Length of the empty line that `bytes` begins with: 1 for LF, 2 for CRLF.
pub(super) fn empty_line(bytes: &[u8]) -> Option<u8> {
    match bytes {
        [b'\n', ..] => Some(1),
        [b'\r', b'\n', ..] => Some(2),
        _ => None,
    }
}

/// Length of the empty line that `bytes` ends with, 0 when its last line is not empty. A line is
/// known to be empty only when the end of the line before it is in `bytes` too.
pub(super) fn trailing_empty_line(bytes: &[u8]) -> u8 {
    match bytes {
        [.., b'\n', b'\n'] => 1,
        [.., b'\n', b'\r', b'\n'] => 2,
        _ => 0,
    }
}

/// What a client gets behind the last byte of a message to have a whole last line.
pub(super) fn completion(last: Option<u8>) -> &'static [u8] {
    match last {
        Some(b'\n') | None => b"",
        Some(b'\r') => b"\n",
        Some(_) => b"\r\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(before: Option<u8>, bytes: &[u8]) -> u64 {
        let mut previous = before;
        let mut found = 0;
        for byte in bytes {
            found += u64::from(*byte == b'\n' && previous == Some(b'\r'));
            previous = Some(*byte);
        }
        found
    }

    #[test]
    fn every_short_string_of_cr_lf_and_others_is_counted_right() {
        for length in 0..8_u32 {
            for number in 0..3_u32.pow(length) {
                let bytes: Vec<u8> =
                    (0..length).map(|i| b"\r\nx"[(number / 3_u32.pow(i) % 3) as usize]).collect();
                for before in [None, Some(b'\r'), Some(b'\n')] {
                    assert_eq!(crlfs(before, &bytes), naive(before, &bytes), "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn runs_longer_than_a_byte_can_count_are_counted_right() {
        for length in [254, 255, 256, 510, 511, 1000] {
            let bytes = b"\r\n".repeat(length);
            assert_eq!(crlfs(None, &bytes), length as u64);
            assert_eq!(crlfs(Some(b'\r'), &b"\n".repeat(length)), 1);
        }
    }
}
