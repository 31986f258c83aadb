/** SMTP replies with enhanced status codes (RFC 5321 section 4.2, RFC 3463). */

export type Reply = {
  readonly code: number
  /** Enhanced status code, RFC 3463; its class equals the first digit of `code`. Empty: none. */
  readonly enhanced: string
  /** What the other side reads, one line. Holds no rule name, score or path of ours. */
  readonly text: string
}

export function reply(code: number, enhanced: string, text: string): Reply {
  return { code, enhanced, text }
}

/** RFC 5321 section 4.5.3.1.5: a reply line has at most 512 octets with code and CRLF. */
const REPLY_TEXT_MAX = 480

/**
 * A reply from foreign text, safe to store and to pass on: one line, printable ASCII,
 * at most 480 characters (response splitting, faults.md C17).
 */
export function cleanReplyText(text: string): string {
  return text
    .replace(/[^\x20-\x7e]+/g, ' ')
    .trim()
    .slice(0, REPLY_TEXT_MAX)
}

/** The reply as one line without CRLF: `250 2.0.0 text`. */
export function formatReply({ code, enhanced, text }: Reply): string {
  return enhanced === '' ? `${code} ${text}` : `${code} ${enhanced} ${text}`
}
