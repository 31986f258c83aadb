/** Finding: what one inspector saw. Verdict: what follows from all findings, per recipient. */

export type Finding = {
  /** The field's symbol style, e.g. `GTUBE`, `BAD_ATTACHMENT_NAME`. Stable: policies name it. */
  readonly rule: string
  /** -100..100. Positive is worse. */
  readonly score: number
  /** What was seen, a whole sentence for the operator. Never sent to the client. */
  readonly evidence: string
}

/** What becomes of mail that an inspector could not judge: asked again, held, or let on and marked. */
export type Outage = 'defer' | 'hold' | 'pass'

/** An inspector that could not answer. It is not a clean result. */
export type Unknown = {
  readonly inspector: string
  readonly cause: string
  /** Left out: `defer`. */
  readonly outage?: Outage
}

export type VerdictKind = 'deliver' | 'hold' | 'reject' | 'defer'

/** What happens to one recipient's copy, and why. */
export type Verdict = {
  readonly kind: VerdictKind
  readonly score: number
  /** Rules with a positive score, highest first. */
  readonly rules: readonly string[]
  /** Inspectors that did not answer. */
  readonly unknown: readonly string[]
}

/** What the inspectors learnt of a message beside findings: for the trace and the lists. */
export type MessageFacts = {
  /** Decoded subject, at most 500 characters; null when there is none. */
  readonly subject: string | null
  /** Decoded From header, at most 500 characters; null when there is none. */
  readonly from: string | null
  /** Message-ID header as it stands, at most 500 characters; null when there is none. */
  readonly messageId: string | null
  /** Addresses of the From headers in lower case, domains as A-labels; at most 20. */
  readonly authors: readonly string[]
}

export const NO_FACTS: MessageFacts = { subject: null, from: null, messageId: null, authors: [] }

/** One check of who sent it, in the words of RFC 8601. */
export type AuthResult = {
  readonly method: 'spf' | 'dkim' | 'dmarc' | 'arc' | 'iprev'
  /** `pass`, `fail`, `none`, `softfail`, `temperror`… */
  readonly result: string
  /** The domain, name or address that was looked at, at most 255 characters. */
  readonly about: string
  /** A whole sentence for people. */
  readonly evidence: string
}

/** A file of the message, or of an archive in it. */
export type FileFact = {
  /** As it is shown, one clean line of at most 200 characters: `a.zip > b.exe`. */
  readonly path: string
  /** By content, lower case, e.g. `pdf`; null when nobody knows. */
  readonly type: string | null
  readonly sizeBytes: number
  /** Hex. */
  readonly sha256: string
}

/** What was seen beside findings: for the message page and the hunt for what was let through. */
export type Insight = {
  /** SHA-256, hex, of the one strict tree of parts; null when nobody walked it. */
  readonly tree: string | null
  /** In the order of the checks; at most 20. */
  readonly authentication: readonly AuthResult[]
  /** Domains that vouch for From (DMARC pass, or what stands in for it), A-labels; at most 5. */
  readonly authenticated: readonly string[]
  /** Links as a browser would open them, at most 100 of at most 500 characters. */
  readonly urls: readonly string[]
  /** At most 50. */
  readonly files: readonly FileFact[]
}

export const NO_INSIGHT: Insight = {
  tree: null,
  authentication: [],
  authenticated: [],
  urls: [],
  files: [],
}

/** Octets of the body that must not go on: offset and length, in order, apart from each other. */
export type Cut = readonly [offset: number, length: number]

/** A field of ours that lacks its signature, and the text over which that goes (RFC 6376 section 3.7). */
export type Unsigned = {
  /** Ready to have the signature appended: `DKIM-Signature: …; b=`. */
  readonly field: string
  /** What is hashed with SHA-256 and signed, Latin-1, at most 256 KB. */
  readonly text: string
}

/**
 * What a key of ours is to sign. A set of ARC (RFC 8617) is made whole or not at all: `results` is
 * its `ARC-Authentication-Results` without a line end; `seal` goes over its own text, then over
 * `message` with the signature that it gets first, then over its own field.
 */
export type ToSign = { readonly domain: string; readonly selector: string } & (
  | ({ readonly kind: 'dkim' } & Unsigned)
  | {
      readonly kind: 'arc'
      readonly results: string
      readonly message: Unsigned
      readonly seal: Unsigned
    }
)

/** What changes on the way to the next hop. */
export type Onward = {
  readonly cuts: readonly Cut[]
  /** Whole header fields with CRLF that go before the message, below `Received`; at most 64 KB. */
  readonly fields: string
  readonly toSign: readonly ToSign[]
}

export const NOTHING_ONWARD: Onward = { cuts: [], fields: '', toSign: [] }

export type Inspection = {
  readonly findings: readonly Finding[]
  readonly unknowns: readonly Unknown[]
  readonly facts: MessageFacts
  /** Left out: nothing was seen. */
  readonly insight?: Insight
  /** Left out: it goes on as it came. */
  readonly onward?: Onward
  /** A process ended over it, or had to be ended. Left out: none did. */
  readonly ended?: true
}
