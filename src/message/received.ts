/** The trace field that we add, and the ones that others added (RFC 5321 section 4.4). Pure. */
import { HEADER_BYTES_MAX } from '../base/limits.ts'
import { hasNonAscii } from './address.ts'
import type { Envelope } from './envelope.ts'

const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat']
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
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
    `\t${formatDate(receivedMs)}\r\n`
  )
}

/** `Sun, 22 Nov 2026 01:02:03 +0000` (RFC 5322 section 3.3). */
export function formatDate(wallMs: number): string {
  const date = new Date(wallMs)
  const two = (value: number): string => String(value).padStart(2, '0')
  return (
    `${DAYS[date.getUTCDay()]}, ${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]} ${date.getUTCFullYear()} ` +
    `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())} +0000`
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
    if (first === 0x72 && buffer.toString('latin1', start, start + 9).toLowerCase() === 'received:') count += 1
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
