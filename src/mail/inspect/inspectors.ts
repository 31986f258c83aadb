/** The inspectors in order of cost, and the run of one message through them. gtube.ts is the one to copy. */
import { messageOf } from '../../base/errors.ts'
import { HEADER_BYTES_MAX } from '../../base/limits.ts'
import { addressesIn } from '../../message/address.ts'
import { decodeText, fieldValue, fieldValues, plainLine } from '../../message/header.ts'
import { Mail, MIME_BOUNDS } from '../../message/mime.ts'
import type { Finding, MessageFacts } from '../../message/verdict.ts'
import { attachments } from './attachments.ts'
import { eicar } from './eicar.ts'
import { gtube } from './gtube.ts'
import { headers } from './headers.ts'
import { parseFindings } from './parse.ts'

/** What SMTP said of the message, as far as inspectors ask for it. */
export type SessionFacts = {
  readonly clientIp: string
  readonly greeting: string
  readonly sender: string
  readonly outbound: boolean
  readonly smtpUtf8: boolean
}

export interface Inspector {
  /** As config/schema `inspect.inspectors` names it. */
  readonly name: string
  /** Looks, never decides and never changes the message. Throws when it cannot answer. */
  inspect(mail: Mail, session: SessionFacts): readonly Finding[]
}

/** Cheap ones first: what they find is known when a dear one overruns. */
export const INSPECTORS: readonly Inspector[] = [headers, gtube, attachments, eicar]

/** The answer of one inspector; `parse` stands for the walk that all of them share. */
export type Answer =
  | { readonly inspector: string; readonly findings: readonly Finding[] }
  | { readonly inspector: string; readonly cause: string }

/** The name under which the shared walk reports; not a name of the settings. */
export const PARSE = 'parse'

/**
 * Runs the named inspectors over one message, in the order of INSPECTORS. `tell` gets each
 * answer as soon as it is there. What throws is an answer with a cause: unknown, not clean.
 */
export function inspectMail(
  raw: Uint8Array,
  session: SessionFacts,
  names: readonly string[],
  tell: (answer: Answer) => void,
): MessageFacts {
  const mail = new Mail(raw, { ...MIME_BOUNDS, headerBytesMax: HEADER_BYTES_MAX })
  const found = parseFindings(mail)
  if (found.length > 0) tell({ inspector: PARSE, findings: found })
  for (const inspector of INSPECTORS) {
    if (names.includes(inspector.name)) tell(answerOf(inspector, mail, session))
  }
  for (const name of names) {
    if (INSPECTORS.every((inspector) => inspector.name !== name)) {
      tell({ inspector: name, cause: 'no inspector has this name' })
    }
  }
  return factsOf(mail)
}

function answerOf(inspector: Inspector, mail: Mail, session: SessionFacts): Answer {
  try {
    return { inspector: inspector.name, findings: inspector.inspect(mail, session) }
  } catch (error) {
    return { inspector: inspector.name, cause: plainLine(messageOf(error), 200) }
  }
}

/** Addresses in From (message/verdict). */
const AUTHORS_MAX = 20
/** Characters of a fact (message/verdict). */
const FACT_CHARS_MAX = 500

function factsOf({ header }: Mail): MessageFacts {
  const fact = (name: string): string | null => {
    const value = fieldValue(header, name)
    return value === null
      ? null
      : plainLine(decodeText(value.slice(0, FACT_CHARS_MAX * 8)), FACT_CHARS_MAX)
  }
  return {
    subject: fact('subject'),
    from: fact('from'),
    messageId: fact('message-id'),
    authors: addressesIn(fieldValues(header, 'from').join(','), AUTHORS_MAX),
  }
}

/**
 * Rules that say one thing in several words, and what they may weigh together. Each group holds
 * a message and never refuses it: attached files, and a structure that readers see differently,
 * come from honest senders too, so a person can look and release.
 */
const GROUPS: readonly { readonly rules: RegExp; readonly scoreMax: number }[] = [
  { rules: /^(?:EICAR$|BAD_ATTACHMENT_|ATTACHMENT_|ARCHIVE_)/, scoreMax: 12 },
  { rules: /^MIME_/, scoreMax: 10 },
]

/** In each group the highest rules count in full, the rest up to what the group may weigh. */
export function capScores(findings: readonly Finding[]): readonly Finding[] {
  return GROUPS.reduce(capGroup, findings)
}

function capGroup(
  findings: readonly Finding[],
  group: (typeof GROUPS)[number],
): readonly Finding[] {
  const members = findings.filter(({ rule, score }) => score > 0 && group.rules.test(rule))
  if (members.reduce((sum, { score }) => sum + score, 0) <= group.scoreMax) return findings
  const scores = new Map<Finding, number>()
  let left = group.scoreMax
  for (const finding of members.toSorted((a, b) => b.score - a.score)) {
    const score = Math.min(finding.score, left)
    scores.set(finding, score)
    left -= score
  }
  return findings.map((finding) => ({ ...finding, score: scores.get(finding) ?? finding.score }))
}
