/** Session facts, Envelope, Recipient: what SMTP said before DATA. */
import type { MessageId } from '../base/ids.ts'
import type { HeldRow } from './rows.ts'

/** One RCPT. Its place in `Envelope.recipients` is its index in marks, verdicts and outcomes. */
export type Recipient = {
  /** As the client wrote it, route removed, local-part case kept (RFC 5321 section 2.4). */
  readonly address: string
  /** NOTIFY of RFC 3461 in upper case, e.g. `NEVER` or `SUCCESS,FAILURE`; null when not given. */
  readonly notify: string | null
  /** ORCPT of RFC 3461 still in xtext, e.g. `rfc822;a@b`; null when not given. */
  readonly orcpt: string | null
}

export type Envelope = {
  readonly id: MessageId
  /** Wall ms when DATA was complete. */
  readonly receivedMs: number
  /** Address of the client, without brackets; IPv4-mapped ones as IPv4. */
  readonly clientIp: string
  /** EHLO or HELO argument, unverified. */
  readonly greeting: string
  /** RFC 3848 and RFC 6531: SMTP, ESMTP, ESMTPS, UTF8SMTP, UTF8SMTPS. */
  readonly protocol: string
  /** `TLSv1.3 TLS_AES_256_GCM_SHA384`, or null in clear text. */
  readonly tls: string | null
  /** From a network of `relay.networks`: may send to any domain. */
  readonly outbound: boolean
  /** Reverse-path without angle brackets; empty for the null sender (RFC 5321 section 4.5.5). */
  readonly sender: string
  /** MAIL BODY=8BITMIME was given (RFC 6152). */
  readonly eightBit: boolean
  /** MAIL SMTPUTF8 was given (RFC 6531). */
  readonly smtpUtf8: boolean
  /** RET of RFC 3461. */
  readonly ret: 'FULL' | 'HDRS' | null
  /** ENVID of RFC 3461 still in xtext. */
  readonly envid: string | null
  /** 1..`mail.recipients`, in the order of RCPT. */
  readonly recipients: readonly Recipient[]
}

/** What is still known of the envelope of a held mail. */
export function envelopeAgain(row: HeldRow): Envelope {
  return {
    id: row.id,
    receivedMs: row.heldMs,
    clientIp: row.clientIp,
    greeting: '',
    protocol: 'ESMTP',
    tls: null,
    outbound: false,
    sender: row.sender,
    eightBit: false,
    smtpUtf8: false,
    ret: null,
    envid: null,
    recipients: row.recipients.map((address) => ({ address, notify: null, orcpt: null })),
  }
}
