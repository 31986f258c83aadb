/** Header sanity: fields that are missing, doubled, malformed or larger than any real mail has (RFC 5322 section 3.6). */
import { type Header, plainLine } from '../../message/header.ts'
import type { Finding } from '../../message/verdict.ts'
import type { Inspector } from './look.ts'

/** Fields that occur once at most (RFC 5322 section 3.6, RFC 2045 section 4). */
const UNIQUE = new Set([
  'date',
  'from',
  'sender',
  'reply-to',
  'to',
  'cc',
  'bcc',
  'message-id',
  'in-reply-to',
  'references',
  'subject',
  'mime-version',
  'content-id',
])
/** Fields by which people and programs judge a mail: a doubtful one deceives. */
const WEIGHTY = new Set(['from', 'sender', 'reply-to', 'to', 'subject', 'date', 'dkim-signature'])
/** RFC 5322 section 2.1.1, without CRLF. */
const LINE_BYTES_MAX = 998
/** Postfix cuts a header here: what stands behind is body to some and header to others. */
const BLOCK_BYTES_MAX = 102_400

export const headers: Inspector = {
  name: 'headers',
  inspect: ({ mail: { header }, session: { smtpUtf8 } }) => [
    ...missing(header),
    ...doubled(header),
    ...malformed(header, smtpUtf8),
  ],
}

/** Together below the hold score: sloppy senders are many. */
function missing({ fields }: Header): readonly Finding[] {
  const findings: Finding[] = []
  const lacks = (name: string): boolean =>
    fields.every((field) => field.name !== name || field.value === '')
  if (lacks('from'))
    findings.push({ rule: 'MISSING_FROM', score: 2, evidence: 'The message has no From.' })
  if (lacks('date'))
    findings.push({ rule: 'MISSING_DATE', score: 1, evidence: 'The message has no Date.' })
  if (lacks('message-id')) {
    findings.push({
      rule: 'MISSING_MESSAGE_ID',
      score: 1,
      evidence: 'The message has no Message-ID.',
    })
  }
  return findings
}

function doubled({ fields }: Header): readonly Finding[] {
  const counts = new Map<string, number>()
  for (const { name } of fields) if (UNIQUE.has(name)) counts.set(name, (counts.get(name) ?? 0) + 1)
  const twice = [...counts].filter(([, count]) => count > 1).map(([name]) => name)
  if (twice.length === 0) return []
  if (twice.includes('from')) {
    return [
      {
        rule: 'MULTIPLE_FROM',
        score: 8,
        evidence: `The message has ${counts.get('from')} From fields.`,
      },
    ]
  }
  return [
    {
      rule: 'DUPLICATE_HEADER',
      score: 3,
      evidence: `Fields that occur twice: ${twice.join(', ')}.`,
    },
  ]
}

function malformed({ flaws, sizeBytes }: Header, smtpUtf8: boolean): readonly Finding[] {
  const findings: Finding[] = []
  const found = (rule: string, score: number, evidence: string): void => {
    findings.push({ rule, score, evidence })
  }
  if (flaws.longestLine > LINE_BYTES_MAX) {
    found(
      'LONG_HEADER_LINE',
      3,
      `A header line has ${flaws.longestLine} octets; ${LINE_BYTES_MAX} are allowed.`,
    )
  }
  if (sizeBytes > BLOCK_BYTES_MAX) found('LARGE_HEADER', 8, `The header has ${sizeBytes} octets.`)
  if (flaws.nul) found('HEADER_NUL', 8, 'The header holds a NUL.')
  if (flaws.bareCr) found('HEADER_BARE_CR', 8, 'The header holds a CR that ends no line.')
  if (flaws.eightBit && !smtpUtf8)
    found('EIGHT_BIT_HEADER', 1, 'The header holds octets above 127.')
  const [name] = flaws.blankBeforeColon
  const [folded] = flaws.folded.filter((each) => WEIGHTY.has(each))
  if (name !== undefined) {
    const weighty = flaws.blankBeforeColon.some((each) => WEIGHTY.has(each))
    found(
      'MALFORMED_HEADER',
      weighty ? 8 : 3,
      `The field ${plainLine(name, 60)} has blanks or a NUL before its colon or its name.`,
    )
  } else if (folded !== undefined) {
    // To some it is a field, to others the end of the one before: they name different senders.
    found('MALFORMED_HEADER', 8, `The field ${folded} stands in a fold of another one.`)
  } else if (flaws.junkLines > 0) {
    found('MALFORMED_HEADER', 4, `${flaws.junkLines} lines of the header are no fields.`)
  }
  return findings
}
