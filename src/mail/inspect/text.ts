/**
 * What a mail says and how it is laid out: topics of those who write to strangers, words that are
 * dressed up to pass filters, markup that hides. Topics count by several phrases together: one
 * word makes nobody a thief.
 */
import { some } from '../../base/prose.ts'
import { plainLine } from '../../message/header.ts'
import type { Mail } from '../../message/mime.ts'
import type { Finding } from '../../message/verdict.ts'
import { disguises } from './disguise.ts'
import type { Inspector } from './look.ts'
import { makingFindings } from './making.ts'
import { THEFT } from './phrases/theft.ts'
import { WARES } from './phrases/wares.ts'
import { subjectFindings } from './subject.ts'
import { type View, viewOf } from './view.ts'
import { indexPhrases, type Phrase, phrasesIn, wordsOf } from './words.ts'

const TOPICS = [...THEFT, ...WARES]
const INDEX = indexPhrases(TOPICS.map(({ phrases }) => phrases))

export const text: Inspector = {
  name: 'text',
  inspect: ({ mail }) => {
    const view = viewOf(mail)
    const words = wordsOf(`${view.subject}\n${view.text}`, INDEX)
    return [
      ...topics(words),
      ...shouting(view),
      ...disguises(view),
      ...layout(mail, view),
      ...subjectFindings(mail, view),
      ...makingFindings(mail),
    ]
  },
}

function topics(words: readonly number[]): readonly Finding[] {
  const findings: Finding[] = []
  const found = phrasesIn(words, INDEX)
  for (const [index, { rule, about, steps }] of TOPICS.entries()) {
    const phrases = found.get(index)
    if (phrases === undefined) continue
    const points = phrases.reduce((sum, phrase) => sum + phrase.points, 0)
    const score = steps.findLast(([from]) => points >= from)?.[1]
    if (score === undefined) continue
    findings.push({ rule, score, evidence: `The text speaks of ${about}: ${quoted(phrases)}.` })
  }
  return findings
}

function quoted(phrases: readonly Phrase[]): string {
  return some(
    phrases.map(({ words }) => `"${words.join(' ')}"`),
    5,
  )
}

/** Capitals and marks, as those write who fear to be overlooked. */
function shouting({ text: seen }: View): readonly Finding[] {
  const findings: Finding[] = []
  const body = seen.slice(0, 16 * 1024)
  const loud = body.match(/(?:^|\s)[A-Z][A-Z'!,.-]{3,}(?=\s|$)/g)?.length ?? 0
  const all = body.match(/[A-Za-z]{4,}/g)?.length ?? 0
  if (loud >= 10 && loud * 5 > all) {
    findings.push({
      rule: 'TEXT_CAPITALS',
      score: loud * 2 > all ? 2.5 : 1.5,
      evidence: `Of ${all} words of the text ${loud} are written in capitals.`,
    })
  }
  const marks = body.match(/!(?!=)/g)?.length ?? 0
  if (marks >= 6 && marks * 40 > all) {
    findings.push({
      rule: 'TEXT_MARKS',
      score: marks * 15 > all ? 1.5 : 1,
      evidence: `The text holds ${marks} exclamation marks in ${all} words.`,
    })
  }
  return findings
}

/** Letters that are seen, below which a text is short. */
const SHORT_CHARS = 200

function layout(mail: Mail, { html, marked, plain, hidden, links }: View): readonly Finding[] {
  const findings: Finding[] = []
  const found = (rule: string, score: number, evidence: string): void => {
    findings.push({ rule, score, evidence })
  }
  if (html === null) return encodings(mail)
  if (plain === '' && marked !== '') {
    found('HTML_ONLY', 0.7, 'The message is markup without a text for those who read text.')
  }
  const letters = marked.replace(/\s/g, '').length
  const pictures = html.images - html.pixels
  if (pictures > 0 && letters < SHORT_CHARS && plain.length < 2 * SHORT_CHARS) {
    const linked = links.some(({ where }) => where === 'html')
    found(
      'HTML_IMAGE_ONLY',
      linked ? 1.5 : 0.8,
      `The message says what it says by ${pictures === 1 ? 'a picture' : `${pictures} pictures`}; its text has ${letters} letters.`,
    )
  }
  const unseen = hidden.replace(/\s/g, '').length
  if (unseen > 300 && unseen * 2 > letters) {
    found(
      'HTML_HIDDEN_TEXT',
      unseen > letters ? 2 : 1,
      `The markup hides ${unseen} letters beside ${letters} that are seen: "${plainLine(hidden, 60)}".`,
    )
  }
  if (html.brokenWords >= 3) {
    found(
      'HTML_BROKEN_WORDS',
      html.brokenWords >= 8 ? 3.5 : 2,
      `Words are split in ${html.brokenWords} places by markup that nobody sees.`,
    )
  }
  if (html.oddTags >= 5) {
    found('HTML_ODD_TAGS', 1.5, `The markup holds ${html.oddTags} elements that do not exist.`)
  }
  if (html.singles >= 10) {
    found(
      'HTML_LETTER_BY_LETTER',
      2,
      `${html.singles} letters in a row stand each in an element of its own.`,
    )
  }
  if (html.refreshes > 0) {
    found('HTML_REFRESH', 2, 'The markup leads to another page by itself.')
  }
  if (html.objects > 0) found('HTML_OBJECT', 1, 'The markup embeds an object or a program.')
  if (html.frames > 0) found('HTML_FRAME', 0.5, 'The markup shows another page in a frame.')
  if (html.scripts > 0 || html.handlers > 3) {
    found('HTML_SCRIPT', 0.5, 'The markup holds a program.')
  }
  return [...findings, ...encodings(mail)]
}

/** Encodings that hide plain text from simple filters. */
function encodings({ leaves }: Mail): readonly Finding[] {
  const findings: Finding[] = []
  for (const { type, charset, encodings: ways, source, start, end, disposition } of leaves) {
    if (!type.startsWith('text/') || disposition === 'attachment') continue
    if (charset !== null && /^(?:utf-?7|x-|unknown|default|iso-8859-$)/.test(charset)) {
      findings.push({
        rule: 'TEXT_ODD_CHARSET',
        score: 1.5,
        evidence: `A text is in the charset "${plainLine(charset, 40)}", which few programs read.`,
      })
      break
    }
    const narrow = charset === null || /^(?:us-ascii|iso-8859-1|windows-1252)$/.test(charset)
    if (ways[0] === 'base64' && narrow && end - start > 0 && isPlain(source, start, end)) {
      findings.push({
        rule: 'TEXT_BASE64',
        score: 1.5,
        evidence: 'A text of plain letters is encoded as if it were a file.',
      })
      break
    }
  }
  return findings
}

/** The first stretch of base64 holds ASCII alone. */
function isPlain(source: Buffer, start: number, end: number): boolean {
  const head = Buffer.from(source.toString('latin1', start, Math.min(end, start + 4_000)), 'base64')
  return head.length > 40 && head.every((byte) => byte < 127)
}
