/** What inspectors answer, and how answers are put together: for the pool and for its children. */
import type { DnsQuestion } from '../../base/names.ts'
import type { Finding, Insight, MessageFacts, Onward } from '../../message/verdict.ts'

/** The answer of one inspector; `parse` stands for the walk that all of them share. */
export type Answer =
  | { readonly inspector: string; readonly findings: readonly Finding[] }
  | { readonly inspector: string; readonly cause: string }
  /** It looks again when these are answered. */
  | { readonly inspector: string; readonly questions: readonly DnsQuestion[] }

/** What is known of a message at the end of one look at it. */
export type Seen = {
  readonly facts: MessageFacts
  readonly insight: Insight
  readonly onward: Onward
}

/** The name under which the shared walk reports; not a name of the settings. */
export const PARSE = 'parse'

/** Bounds of message/verdict. */
const INSIGHT_MAX = { authentication: 20, authenticated: 5, urls: 100, files: 50 } as const
const CUTS_MAX = 100
const TO_SIGN_MAX = 10

/** Lists are joined without doubles, up to their bounds. */
export function joinInsight(insight: Insight, more: Partial<Insight>): Insight {
  return {
    tree: more.tree ?? insight.tree,
    authentication: joined(insight.authentication, more.authentication).slice(
      0,
      INSIGHT_MAX.authentication,
    ),
    authenticated: joined(insight.authenticated, more.authenticated).slice(
      0,
      INSIGHT_MAX.authenticated,
    ),
    urls: joined(insight.urls, more.urls).slice(0, INSIGHT_MAX.urls),
    files: joined(insight.files, more.files).slice(0, INSIGHT_MAX.files),
  }
}

export function joinOnward(onward: Onward, more: Partial<Onward>): Onward {
  return {
    cuts: joined(onward.cuts, more.cuts)
      .toSorted(([a], [b]) => a - b)
      .slice(0, CUTS_MAX),
    fields: onward.fields + (more.fields ?? ''),
    toSign: joined(onward.toSign, more.toSign).slice(0, TO_SIGN_MAX),
  }
}

function joined<Item>(items: readonly Item[], more: readonly Item[] = []): readonly Item[] {
  if (more.length === 0) return items
  const known = new Set(items.map((item) => JSON.stringify(item)))
  return [...items, ...more.filter((item) => !known.has(JSON.stringify(item)))]
}

/**
 * Rules that say one thing in several words, and what they may weigh together. Each group holds
 * a message and never refuses it: attached files, and a structure that readers see differently,
 * come from honest senders too, so a person can look and release.
 */
const GROUPS: readonly { readonly rules: RegExp; readonly scoreMax: number }[] = [
  {
    rules:
      /^(?:EICAR$|BAD_ATTACHMENT_|(?:ARCHIVE|ATTACHMENT|DOCUMENT|DRAWING|LNK|OFFICE|ONENOTE|PAGE|PDF|RTF)_)/,
    scoreMax: 12,
  },
  {
    rules: /^(?:MIME_|HEADER_NUL$|HEADER_BARE_CR$|MALFORMED_HEADER$)/,
    scoreMax: 10,
  },
  { rules: /^URL_/, scoreMax: 10 },
  {
    rules:
      /^(?:PERSON_SPOOF|OWN_DOMAIN_SPOOF|LOOKALIKE_DOMAIN|FIRST_CONTACT|FROM_|REPLYTO_|FREEMAIL_)/,
    scoreMax: 12,
  },
  { rules: /^HTML_/, scoreMax: 6 },
  // Odd programs and sloppy ones make honest mail too.
  {
    rules:
      /^(?:DATE|MAILER|MESSAGE_ID|RECEIVED|SUBJECT)_|^(?:FORGED_PROVIDER|MISSING_MIME_VERSION|MISSING_TO|PRIORITY_HIGH|TO_IS_FROM|TO_UNDISCLOSED)$/,
    scoreMax: 8,
  },
  // Who only advertises comes below the tag score: honest shops do that too.
  { rules: /^TEXT_(?:CALL|FORM|INCOME|LOAN|OUTREACH|REMOVE)$/, scoreMax: 5.5 },
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
