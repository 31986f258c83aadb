/** How a subject calls: capitals, marks, gaps, an answer to nothing. */
import { fieldValue } from '../../message/header.ts'
import type { Mail } from '../../message/mime.ts'
import type { Finding } from '../../message/verdict.ts'
import { mixesScripts } from './skeleton.ts'
import type { View } from './view.ts'

export function subjectFindings({ header }: Mail, { subject }: View): readonly Finding[] {
  const findings: Finding[] = []
  const found = (rule: string, score: number, evidence: string): void => {
    findings.push({ rule, score, evidence })
  }
  const raw = fieldValue(header, 'subject')
  if (raw === null || subject.trim() === '') {
    found('SUBJECT_EMPTY', 0.8, 'The message has no subject.')
    return findings
  }
  // What a list or an answer puts before it is not the writer's.
  const own = subject.replace(/^(?:\s*(?:re|aw|fwd?|wg|sv|\[[^\]]{1,40}\])\s*:?\s*)+/i, '')
  const letters = own.replace(/[^\p{L}]/gu, '')
  if (
    letters.length >= 10 &&
    /\s/.test(own.trim()) &&
    letters === letters.toUpperCase() &&
    letters !== letters.toLowerCase()
  ) {
    found('SUBJECT_CAPITALS', 2, 'The subject is written in capitals.')
  }
  const marks = own.match(/!/g)?.length ?? 0
  if (marks > 1 || /[!?]{2}/.test(own))
    found('SUBJECT_MARKS', 1.2, 'The subject shouts with marks.')
  else if (marks === 1) found('SUBJECT_MARK', 0.5, 'The subject ends with an exclamation mark.')
  if (/\$\s?\d|\d\s?\$|€\s?\d|\d\s?€|£\s?\d|\$\$/.test(own)) {
    found('SUBJECT_MONEY', 0.8, 'The subject names a sum of money.')
  }
  if (/\d\s?%/.test(own)) found('SUBJECT_PERCENT', 0.5, 'The subject names a percentage.')
  if (/(?:^|\s)(?:\p{L}[ .\-_*]){3,}\p{L}(?=$|\s|[!?.])/u.test(own)) {
    found('SUBJECT_GAPS', 1.5, 'The subject puts gaps between the letters of a word.')
  }
  if (/\s{5,}\S/.test(own)) {
    found('SUBJECT_TAIL', 3, 'The subject ends behind a long gap, where a mark for filters stands.')
  }
  if (/^\W{0,2}adv\b/i.test(own))
    found('SUBJECT_ADV', 3, 'The subject marks itself as an advertisement.')
  if (/^\s*(?:re|aw|sv)\s*(?:\[\d+\])?:/i.test(subject) && isNoAnswer(header)) {
    found('SUBJECT_NO_ANSWER', 0.5, 'The subject says that it answers, but no message is answered.')
  }
  const word = own.split(/\s+/).find(mixesScripts)
  if (word !== undefined) {
    found('SUBJECT_MIXED_SCRIPTS', 3, 'A word of the subject mixes letters of two alphabets.')
  }
  const names = recipientNames(fieldValue(header, 'to') ?? '')
  const start = /^[^\s,:;-]{3,30}/.exec(own.toLowerCase())?.[0]
  if (start !== undefined && names.includes(start) && /^[^\s]{3,30}\s*[,:;-]/.test(own)) {
    found(
      'SUBJECT_RECIPIENT',
      1.5,
      `The subject calls the recipient by the name of the address, "${start}".`,
    )
  }
  if (
    /=\?[^?]+\?b\?/i.test(raw) &&
    /^[\x20-\x7e]+$/.test(subject) &&
    !/=\?(?:utf-8|iso-2022)/i.test(raw)
  ) {
    found('SUBJECT_NEEDLESS_BASE64', 1, 'The subject is encoded although its letters are plain.')
  }
  return findings
}

function isNoAnswer(header: Mail['header']): boolean {
  return header.fields.every(
    ({ name }) => name !== 'references' && name !== 'in-reply-to' && name !== 'thread-index',
  )
}

function recipientNames(to: string): readonly string[] {
  return [...to.toLowerCase().matchAll(/([a-z0-9._-]{3,40})@/g)]
    .slice(0, 20)
    .map(([, name]) => name ?? '')
}
