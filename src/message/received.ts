/** The trace field that we add, and the ones that others added (RFC 5321 section 4.4). Pure. */
import { HEADER_BYTES_MAX } from '../base/limits.ts'
import { hasNonAscii } from './address.ts'
import { mailDate } from './date.ts'
import type { Envelope } from './envelope.ts'

const END_OF_HEADER = Buffer.from('\r\n\r\n')

/**
 * Our Received field, folded, with CRLF. `for` only with one recipient: else it would show the
 * blind copies (faults.md C25).
 */
export function receivedField(envelope: Envelope, hostname: string): string {
  const { clientIp, greeting, protocol, id, recipients, receivedMs } = envelope
  const literal = clientIp.includes(':') ? `[IPv6:${clientIp}]` : `[${clientIp}]`
  const only = recipients.length === 1 ? recipients[0]?.address : undefined
  const mayName = only !== undefined && (envelope.smtpUtf8 || !hasNonAscii(only))
  return (
    `Received: from ${cleanName(greeting)} (${literal})\r\n` +
    `\tby ${hostname} (Postern) with ${protocol} id ${id}${mayName ? `\r\n\tfor <${only}>` : ''};\r\n` +
    `\t${mailDate(receivedMs)}\r\n`
  )
}

/** Received fields at the start of `bytes`: how many hosts the message has seen. */
export function countReceived(bytes: Uint8Array): number {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const found = buffer.indexOf(END_OF_HEADER)
  const end = found < 0 ? Math.min(buffer.length, HEADER_BYTES_MAX) : found
  let count = 0
  for (let start = 0; start < end; ) {
    // Only the first letter is compared before the slice: most fields are not this one.
    const first = (buffer[start] ?? 0) | 0x20
    if (first === 0x72 && buffer.toString('latin1', start, start + 9).toLowerCase() === 'received:')
      count += 1
    const next = buffer.indexOf(10, start)
    if (next < 0) break
    start = next + 1
  }
  return count
}

/** What the client called itself, as far as it is harmless in a header. */
function cleanName(greeting: string): string {
  const clean = greeting.replace(/[^A-Za-z0-9.:[\]_-]/g, '').slice(0, 255)
  return clean === '' ? 'unknown' : clean
}
