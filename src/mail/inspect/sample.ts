/** What of a message is learnt: made in a process of its own, as a preview is. */
import { createHash } from 'node:crypto'
import { decodeText, fieldValue, plainLine } from '../../message/header.ts'
import { type Sample, SUBJECT_CHARS_MAX } from '../../message/learned.ts'
import { Mail } from '../../message/mime.ts'
import { signatureOf } from './campaign.ts'
import { tokensOf } from './tokens.ts'
import { viewOf } from './view.ts'

export function sampleOf(raw: Uint8Array): Sample {
  const mail = new Mail(raw)
  const subject = fieldValue(mail.header, 'subject') ?? ''
  return {
    fingerprint: fingerprintOf(mail),
    tokens: tokensOf(mail).sorted(),
    signature: signatureOf(viewOf(mail).text),
    subject: plainLine(decodeText(subject.slice(0, 8 * SUBJECT_CHARS_MAX)), SUBJECT_CHARS_MAX),
  }
}

/** Fields that nobody on the way changes; a Subject may be tagged, the rest is added to. */
const LASTING = ['from', 'date', 'message-id']

/** Of the lasting fields and the body, whose line ends and last blank lines do not count. */
function fingerprintOf({ header, raw }: Mail): string {
  const hash = createHash('sha256')
  for (const name of LASTING) {
    hash.update(`${name}:${(fieldValue(header, name) ?? '').replace(/\s+/g, ' ')}\n`)
  }
  const body = raw.toString('latin1', header.bodyStart).replace(/\r\n/g, '\n').trimEnd()
  return hash.update(body, 'latin1').digest('hex').slice(0, 32)
}
