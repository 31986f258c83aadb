/** Mails whose structure readers take differently, each with the test virus in an attachment, in both encodings. */
import { capScores } from '../src/mail/inspect/answers.ts'
import type { Finding } from '../src/message/verdict.ts'
import { lookAt } from './look.ts'

export const EICAR = [
  'X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-',
  'ANTIVIRUS-TEST-FILE!$H+H*',
].join('')

export type Encoding = {
  readonly name: 'base64' | 'quoted-printable'
  /** The encoding that it is not. */
  readonly other: string
  readonly payload: string
}

export const ENCODINGS: readonly Encoding[] = [
  {
    name: 'base64',
    other: 'quoted-printable',
    payload: (
      Buffer.from(EICAR)
        .toString('base64')
        .match(/.{1,76}/g) ?? []
    ).join('\r\n'),
  },
  {
    name: 'quoted-printable',
    other: 'base64',
    payload: EICAR.replace(/[^A-Z0-9]|[AEP]/g, (char) => hex(char)).replace(/.{60}/, '$&=\r\n'),
  },
]

export function hex(char: string): string {
  return `=${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`
}

export const HEAD = [
  'From: Anna <a@sender.example>',
  'To: b@ours.example',
  'Subject: Offer',
  'Date: Sun, 22 Nov 2026 01:00:00 +0000',
  'Message-ID: <1@sender.example>',
  'MIME-Version: 1.0',
]

export type Shape = {
  readonly head?: readonly string[]
  /** The field of the message, with what else stands beside it. */
  readonly type?: string
  readonly preamble?: string
  /** Line before the text, before the file, at the end. */
  readonly open?: string
  readonly next?: string
  readonly close?: string
  readonly text?: string
  /** Header of the file. */
  readonly fields?: readonly string[]
  /** Between the fields of the file. */
  readonly fieldEnd?: string
  /** Between the header and the content of the file. */
  readonly gap?: string
  readonly payload: string
  readonly epilogue?: string
}

const FILE = [
  'Content-Type: application/octet-stream; name=att',
  'Content-Disposition: attachment; filename=att.bin',
]

/** A text and a file, one thing or another changed. */
export function mail(shape: Shape): Buffer {
  const {
    head = HEAD,
    type = 'Content-Type: multipart/mixed; boundary=foo',
    preamble = '',
    open = '--foo',
    next = '--foo',
    close = '--foo--',
    text = 'Content-Type: text/plain\r\n\r\nSee attached.\r\n',
    fields = FILE,
    fieldEnd = '\r\n',
    gap = '\r\n\r\n',
    payload,
    epilogue = '',
  } = shape
  return Buffer.from(
    `${[...head, type].join('\r\n')}\r\n\r\n${preamble}${open}\r\n${text}${next}\r\n${fields.join(fieldEnd)}${gap}${payload}\r\n${close}\r\n${epilogue}`,
    'latin1',
  )
}

/** The fields of the file with those that say its encoding. */
export function file(...encoding: readonly string[]): readonly string[] {
  return [...FILE, ...encoding]
}

export const cte = (value: string): string => `Content-Transfer-Encoding: ${value}`

/** A name, and the mail in one encoding. */
export type Case = readonly [name: string, make: (encoding: Encoding) => Buffer]

export function findingsOf(
  raw: Uint8Array,
  inspectors: readonly string[] = ['headers', 'attachments', 'eicar'],
): readonly Finding[] {
  const findings: Finding[] = []
  const causes: string[] = []
  lookAt(raw, { inspectors }, (answer) => {
    if ('findings' in answer) findings.push(...answer.findings)
    else causes.push('cause' in answer ? answer.cause : 'asked the name servers')
  })
  if (causes.length > 0) throw new Error(causes.join())
  return findings
}

/** `found`: the virus was seen. `held`: the structure alone holds it. `clean`: it would be delivered. */
export function fate(raw: Uint8Array): 'found' | 'held' | 'clean' {
  const findings = findingsOf(raw)
  if (findings.some(({ rule }) => rule === 'EICAR')) return 'found'
  const score = capScores(findings).reduce((sum, finding) => sum + finding.score, 0)
  return score >= 8 ? 'held' : 'clean'
}
