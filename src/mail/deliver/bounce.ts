/** Delivery status notifications (RFC 3461, RFC 3464, RFC 6533). Pure. */
import { createHash } from 'node:crypto'
import type { MessageId } from '../../base/ids.ts'
import { parseAddress } from '../../message/address.ts'
import { mailDate } from '../../message/date.ts'
import type { Envelope } from '../../message/envelope.ts'
import { cleanReplyText, type Reply } from '../../message/reply.ts'

/** `success`: handed to a next hop that reports no successes itself (action `relayed`). */
export type BounceKind = 'failure' | 'delay' | 'success'

export type BouncedRecipient = {
  /** As in the envelope. */
  readonly address: string
  readonly notify: string | null
  /** Still in xtext, as in the envelope. */
  readonly orcpt: string | null
  /** The last reply of a next hop, or what stands for one. */
  readonly reply: Reply
  /** `host[ip]:port` of the next hop that said it; null when none did. */
  readonly host: string | null
}

export type BounceInput = {
  /** Id of the message that the notification is about. */
  readonly mid: MessageId
  readonly kind: BounceKind
  /** Name of this server in the report. ASCII. */
  readonly reportingHost: string
  readonly envelope: Pick<Envelope, 'sender' | 'envid' | 'ret' | 'smtpUtf8' | 'receivedMs'>
  readonly recipients: readonly BouncedRecipient[]
  /** First bytes of the message, canonical: its header, or all of it when `isWhole`. */
  readonly original: { readonly bytes: Uint8Array; readonly isWhole: boolean }
  /** Wall ms until which delivery is tried; for `delay`. */
  readonly expiresMs: number | null
  readonly nowMs: number
}

/** A message of its own, to be enqueued with the null sender. */
export type Bounce = {
  /** Canonical: CRLF only, lines within RFC 5322 but for those of the original header. */
  readonly bytes: Uint8Array
  readonly recipient: string
  /** It holds UTF-8 and goes out with SMTPUTF8 and BODY=8BITMIME. */
  readonly smtpUtf8: boolean
}

/** Bytes of the original that go back at most. A mail storm must not grow on its way back. */
export const RETURNED_BYTES_MAX = 64 * 1024
/** Recipients that one notification names; a message has at most 10,000. */
const NAMED_MAX = 1_000

/**
 * Whether this gateway may tell the sender that a mail was not delivered. Nobody has proved who
 * sent it as long as neither SPF nor DKIM is looked at, and most unwanted mail names a stranger
 * as its sender: a notification to that stranger would be unwanted mail of ours (backscatter).
 * Two senders are safe to tell: one in a domain that we take mail for, as the notification
 * stays in the house; and one whose client is in the relay networks, which the operator trusts.
 * Never the null sender (RFC 5321 section 4.5.5).
 */
export function mayBounce(
  envelope: Pick<Envelope, 'sender' | 'outbound'>,
  ownDomains: { readonly has: (name: string) => boolean },
): boolean {
  if (envelope.sender === '') return false
  const sender = parseAddress(envelope.sender)
  if (sender === null) return false
  return envelope.outbound || ownDomains.has(sender.domain)
}

/** NOTIFY of RFC 3461 section 4.1. Without it: failures and delays are told, successes are not. */
export function wantsBounce(notify: string | null, kind: BounceKind): boolean {
  if (notify === null || notify === '') return kind !== 'success'
  return notify.toUpperCase().split(',').includes(kind.toUpperCase())
}

/**
 * The notification for those of the recipients that want it; null when there is nobody to tell.
 * The same input gives the same bytes: its Message-ID and boundary follow from the message, the
 * recipients and the kind, so that a notification made twice can be told from two.
 */
export function buildBounce(input: BounceInput): Bounce | null {
  const { envelope, kind } = input
  const recipients = input.recipients.filter(
    ({ notify, address }) => wantsBounce(notify, kind) && isOneLine(address),
  )
  if (envelope.sender === '' || !isOneLine(envelope.sender) || recipients.length === 0) return null
  const utf8 = needsUtf8(input, recipients)
  const returned = returnedPart(input, utf8)
  const id = digest(input, recipients)
  const boundary = freeBoundary(id, returned.content)
  const text = [
    ...headerLines(input, { id, boundary }),
    '',
    `--${boundary}`,
    `Content-Type: text/plain; charset=${utf8 ? 'utf-8' : 'us-ascii'}`,
    `Content-Transfer-Encoding: ${utf8 ? '8bit' : '7bit'}`,
    '',
    ...humanLines(input, recipients, returned.isWhole),
    '',
    `--${boundary}`,
    `Content-Type: message/${utf8 ? 'global-delivery-status' : 'delivery-status'}`,
    `Content-Transfer-Encoding: ${utf8 ? '8bit' : '7bit'}`,
    '',
    ...statusLines(input, recipients, utf8),
    '',
    `--${boundary}`,
    `Content-Type: ${returned.type}`,
    `Content-Transfer-Encoding: ${returned.isAscii ? '7bit' : '8bit'}`,
    '',
    '',
  ].join('\r\n')
  const end = Buffer.from(`\r\n--${boundary}--\r\n`)
  const bytes = Buffer.concat([Buffer.from(text), returned.content, end])
  return { bytes, recipient: envelope.sender, smtpUtf8: utf8 }
}

/**
 * Xtext of RFC 3461 section 4 decoded: printable ASCII only. Null for anything else, above all
 * for a CR or LF in disguise, which would be a header line of its own (CVE-2020-28026).
 */
export function decodeXtext(text: string): string | null {
  if (/\+(?![0-9A-F]{2})/.test(text)) return null
  const decoded = text.replace(/\+([0-9A-F]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  )
  return decoded !== '' && isAsciiLine(decoded) ? decoded : null
}

const SUBJECTS: Readonly<Record<BounceKind, string>> = {
  failure: 'Undelivered mail returned to sender',
  delay: 'Delayed mail: still being tried',
  success: 'Mail was passed on',
}

const ACTIONS: Readonly<Record<BounceKind, string>> = {
  failure: 'failed',
  delay: 'delayed',
  success: 'relayed',
}

function headerLines(
  { reportingHost, envelope, kind, original, nowMs }: BounceInput,
  { id, boundary }: { readonly id: string; readonly boundary: string },
): string[] {
  const about = messageIdOf(original.bytes)
  return [
    `Date: ${mailDate(nowMs)}`,
    `From: Mail Delivery System <MAILER-DAEMON@${reportingHost}>`,
    `To: <${envelope.sender}>`,
    `Subject: ${SUBJECTS[kind]}`,
    `Message-ID: <${id}.${kind}@${reportingHost}>`,
    ...(about === null ? [] : [`In-Reply-To: ${about}`, `References: ${about}`]),
    'Auto-Submitted: auto-replied',
    'MIME-Version: 1.0',
    'Content-Type: multipart/report; report-type=delivery-status;',
    `\tboundary="${boundary}"`,
  ]
}

function humanLines(
  { reportingHost, kind, mid, expiresMs }: BounceInput,
  recipients: readonly BouncedRecipient[],
  isWhole: boolean,
): string[] {
  const opening: Readonly<Record<BounceKind, readonly string[]>> = {
    failure: [
      'Your message could not be delivered to the recipients below.',
      'It is not tried again.',
    ],
    delay: [
      'Your message could not be delivered yet. It is tried again by itself;',
      'you need not send it again.',
      ...(expiresMs === null
        ? []
        : [`It goes back to you if it is not delivered by ${mailDate(expiresMs)}.`]),
    ],
    success: [
      'Your message was passed on to the next mail server, which sends no',
      'notifications of its own. You may hear nothing more.',
    ],
  }
  const named = recipients
    .slice(0, NAMED_MAX)
    .flatMap(({ address, reply }) => [
      '',
      `<${address}>:`,
      `    ${reply.code} ${reply.enhanced === '' ? '' : `${reply.enhanced} `}${cleanReplyText(reply.text)}`,
    ])
  const omitted = recipients.length - NAMED_MAX
  return [
    `This is the mail system at ${reportingHost}.`,
    '',
    ...opening[kind],
    ...named,
    ...(omitted > 0 ? ['', `... and ${omitted} more.`] : []),
    '',
    `${isWhole ? 'The message' : 'Its header'} is attached. Here it has the id ${mid}.`,
  ]
}

/** RFC 3464 section 2: fields of the message, then of each recipient, empty lines between. */
function statusLines(
  { reportingHost, envelope, kind, expiresMs, nowMs }: BounceInput,
  recipients: readonly BouncedRecipient[],
  utf8: boolean,
): string[] {
  const envid = envelope.envid === null ? null : decodeXtext(envelope.envid)
  const lines = [
    ...(envid === null ? [] : [`Original-Envelope-Id: ${envid}`]),
    `Reporting-MTA: dns; ${reportingHost}`,
    `Arrival-Date: ${mailDate(envelope.receivedMs)}`,
  ]
  for (const recipient of recipients.slice(0, NAMED_MAX)) {
    const { address, host, reply } = recipient
    const remote = /^([A-Za-z0-9._:-]+)\[/.exec(host ?? '')?.[1]
    const original = originalRecipient(recipient.orcpt, utf8)
    lines.push(
      '',
      ...(original === null ? [] : [`Original-Recipient: ${original}`]),
      `Final-Recipient: ${isAscii(address) ? 'rfc822' : 'utf-8'}; ${address}`,
      `Action: ${ACTIONS[kind]}`,
      `Status: ${statusOf(reply, kind)}`,
      ...(remote === undefined ? [] : [`Remote-MTA: dns; ${remote}`]),
      `Diagnostic-Code: smtp; ${diagnostic(reply)}`,
      `Last-Attempt-Date: ${mailDate(nowMs)}`,
      ...(kind === 'delay' && expiresMs !== null
        ? [`Will-Retry-Until: ${mailDate(expiresMs)}`]
        : []),
    )
  }
  return lines
}

/** The class says what became of it, whatever the next hop wrote (RFC 3464 section 2.3.4). */
function statusOf({ code, enhanced }: Reply, kind: BounceKind): string {
  const digit = kind === 'success' ? '2' : kind === 'delay' ? '4' : code < 500 ? '4' : '5'
  if (/^[245]\.\d{1,3}\.\d{1,3}$/.test(enhanced) && enhanced.startsWith(digit)) return enhanced
  return `${digit}.0.0`
}

function diagnostic({ code, enhanced, text }: Reply): string {
  return `${code} ${enhanced === '' ? '' : `${enhanced} `}${cleanReplyText(text)}`.trim()
}

/** `type; address` from ORCPT; null when it cannot stand in a header line. */
function originalRecipient(orcpt: string | null, utf8: boolean): string | null {
  const semicolon = orcpt?.indexOf(';') ?? -1
  if (orcpt === null || semicolon < 1) return null
  const type = orcpt.slice(0, semicolon)
  if (!/^[A-Za-z0-9-]{1,40}$/.test(type)) return null
  const written = orcpt.slice(semicolon + 1)
  if (type.toLowerCase() !== 'utf-8') {
    const address = decodeXtext(written)
    return address === null ? null : `${type}; ${address}`
  }
  // RFC 6533 section 3: this type has an encoding of its own, which may stand as it is.
  return written !== '' && (utf8 ? isOneLine(written) : isAsciiLine(written))
    ? `${type}; ${written}`
    : null
}

type Returned = {
  readonly type: string
  readonly content: Buffer
  readonly isAscii: boolean
  readonly isWhole: boolean
}

/**
 * The message as it came when RET=FULL asks for it, it failed, it is small, and its bytes can
 * travel; its header otherwise (RFC 3461 section 4.3 leaves the choice when nothing was asked).
 */
function returnedPart({ envelope, kind, original }: BounceInput, utf8: boolean): Returned {
  const { bytes, isWhole } = original
  const all = asBuffer(bytes)
  const asked = kind === 'failure' && envelope.ret === 'FULL' && isWhole
  const isSmall = all.length <= RETURNED_BYTES_MAX
  if (asked && isSmall && isCanonical(all) && (utf8 || isAscii(all.toString('latin1')))) {
    const ascii = isAscii(all.toString('latin1'))
    return {
      type: ascii ? 'message/rfc822' : 'message/global',
      content: all,
      isAscii: ascii,
      isWhole: true,
    }
  }
  const text = headerText(all, utf8)
  const ascii = isAscii(text)
  const type = ascii ? 'text/rfc822-headers' : 'message/global-headers'
  return { type, content: Buffer.from(text), isAscii: ascii, isWhole: false }
}

/** The header lines, whole ones only, with CRLF. What is no UTF-8 or may not be one becomes `?`. */
function headerText(bytes: Buffer, utf8: boolean): string {
  const end = bytes.indexOf('\r\n\r\n')
  const head = bytes.subarray(0, Math.min(end < 0 ? bytes.length : end + 2, RETURNED_BYTES_MAX))
  const whole = head.subarray(0, Math.max(0, head.lastIndexOf('\r\n') + 2))
  const text = whole.toString(utf8 ? 'utf8' : 'latin1')
  const plain = utf8 ? text.replace(/\ufffd/g, '?') : text.replace(/[^\x00-\x7f]/g, '?')
  return plain.replace(/\r(?!\n)|(?<!\r)\n|\0/g, '?')
}

/** Value of Message-ID, when it can stand in a header line of ours. */
function messageIdOf(bytes: Uint8Array): string | null {
  const text = headerText(asBuffer(bytes), false)
  return /^message-id:\s*(<[\x21-\x3b\x3d\x3f-\x7e]{1,250}>)/im.exec(text)?.[1] ?? null
}

/** Two lists that differ give two digests: a NUL is in no address. */
function digest({ mid, kind }: BounceInput, recipients: readonly BouncedRecipient[]): string {
  const parts = [mid, kind, ...recipients.map(({ address }) => address)]
  return createHash('sha256').update(parts.join('\0')).digest('hex').slice(0, 32)
}

/** A boundary that stands nowhere in what goes back, or that part would end early. */
function freeBoundary(id: string, content: Buffer): string {
  for (let count = 0; ; count++) {
    const hash = createHash('sha256').update(`${id}\0${count}`).digest('hex').slice(0, 32)
    if (!content.includes(`=_${hash}`)) return `=_${hash}`
  }
}

/** RFC 6533 section 3: only what ASCII cannot say is said in UTF-8. */
function needsUtf8(
  { envelope, original }: BounceInput,
  recipients: readonly BouncedRecipient[],
): boolean {
  if (!isAscii(envelope.sender) || recipients.some(({ address }) => !isAscii(address))) return true
  return envelope.smtpUtf8 && !isAscii(headerText(asBuffer(original.bytes), true))
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function isAscii(text: string): boolean {
  return !/[^\x00-\x7f]/.test(text)
}

function isAsciiLine(text: string): boolean {
  return !/[^\x20-\x7e]/.test(text)
}

function isOneLine(text: string): boolean {
  return !/[\x00-\x1f\x7f]/.test(text)
}

function isCanonical(bytes: Buffer): boolean {
  return !/\r(?!\n)|(?<!\r)\n|\0/.test(bytes.toString('latin1'))
}
