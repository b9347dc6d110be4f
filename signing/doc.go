// Package signing decides who is trusted: which images may run here, and which
// commits of the fleet repository count.
//
// A Verifier answers for images. For one image it does, in this order:
//
//  1. Find the first rule that matches the repository. No rule: refused.
//  2. Read the signature that was accepted before, from the device's disk, and
//     check it again against the keys of that rule. It holds: accepted, with no
//     network involved, so that a device boots offline.
//  3. Ask the registry for signatures, try each against each key, stop at the
//     first that holds, and keep it on disk. None holds: refused.
//
// Two formats are understood: the Sigstore bundle, attached as an OCI 1.1
// referrer (cosign v3's default), and the classic cosign signature under the
// tag sha256-….sig (cosign v2's). The registry is not trusted: what it serves
// counts only by a signature over the image's digest, is bounded in size and
// number, and ends with the context. Nothing else is asked over the network; no
// transparency log, no key server.
//
// Commits answers for commits, by SSH signatures and an allowed signers file.
//
// The rules, the keys and the allowed signers come from the device, never from
// the repository that they judge.
package signing
