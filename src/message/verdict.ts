/** Finding: what one inspector saw. Verdict: what follows from all findings, per recipient. */

export type Finding = {
  /** The field's symbol style, e.g. `GTUBE`, `BAD_ATTACHMENT_NAME`. Stable: policies name it. */
  readonly rule: string
  /** -100..100. Positive is worse. */
  readonly score: number
  /** What was seen, a whole sentence for the operator. Never sent to the client. */
  readonly evidence: string
}

/** An inspector that could not answer. It is not a clean result. */
export type Unknown = { readonly inspector: string; readonly cause: string }

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

export type Inspection = {
  readonly findings: readonly Finding[]
  readonly unknowns: readonly Unknown[]
  readonly facts: MessageFacts
}
