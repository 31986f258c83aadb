/** Replies of a next hop, read within bounds. Pure: no socket, no clock. */
import { GatewayError } from '../../base/errors.ts'
import { cleanReplyText, type Reply } from '../../message/reply.ts'

/** The next hop speaks no SMTP, or too much of it (faults.md C21). The connection is of no use. */
export class BadReplyError extends GatewayError {
  override name = 'BadReplyError'
}

/** Octets of a reply line. RFC 5321 section 4.5.3.1.5 says 512; real hops write more. */
const LINE_BYTES_MAX = 2_048
/** Lines of one reply, as an EHLO of every extension needs a third of it. */
const LINES_MAX = 100
/** Octets of one reply, and of everything that waits to be asked for. */
const REPLY_BYTES_MAX = 64 * 1024

/** Section 4.2 of RFC 5321: the second digit is 0..5. Neither 299 nor 999 is a reply code. */
const LINE = /^([2-5][0-5]\d)(?:([ -])(.*))?$/s
const ENHANCED = /^([245]\.\d{1,3}\.\d{1,3})(?: +|$)/

export type HopReply = {
  readonly code: number
  /** Text of each line after code and separator, at least one, in Latin-1. */
  readonly lines: readonly string[]
}

export class ReplyReader {
  #text = ''
  #lines: string[] = []
  #code = ''
  #bytes = 0
  readonly #ready: HopReply[] = []
  #readyBytes = 0

  /** @throws BadReplyError on anything that is not a sequence of SMTP replies */
  push(chunk: string): void {
    this.#text = this.#text === '' ? chunk : this.#text + chunk
    for (let from = 0; ; ) {
      const end = this.#text.indexOf('\n', from)
      if (end < 0) {
        if (from > 0) this.#text = this.#text.slice(from)
        if (this.#text.length > LINE_BYTES_MAX) throw bad('a line without end')
        return
      }
      if (this.#text[end - 1] !== '\r' || end === from) throw bad('a bare line feed')
      this.#line(this.#text.slice(from, end - 1))
      from = end + 1
    }
  }

  next(): HopReply | null {
    const reply = this.#ready.shift()
    if (reply === undefined) return null
    if (this.#ready.length === 0) this.#readyBytes = 0
    return reply
  }

  /** Whether nothing has come that was not asked for by `next`, not even a part of a line. */
  get isEmpty(): boolean {
    return this.#ready.length === 0 && this.#lines.length === 0 && this.#text === ''
  }

  get hasReply(): boolean {
    return this.#ready.length > 0
  }

  #line(line: string): void {
    if (line.length > LINE_BYTES_MAX) throw bad('a line too long')
    const match = LINE.exec(line)
    if (match === null) throw bad('a line that is no reply')
    const [, code = '', separator = ' ', text = ''] = match
    if (this.#lines.length > 0 && code !== this.#code) throw bad('two codes in one reply')
    this.#code = code
    this.#lines.push(text)
    this.#bytes += line.length
    this.#readyBytes += line.length
    if (this.#lines.length > LINES_MAX || this.#bytes > REPLY_BYTES_MAX) throw bad('no end')
    if (this.#readyBytes > REPLY_BYTES_MAX) throw bad('more replies than commands')
    if (separator === '-') return
    this.#ready.push({ code: Number(code), lines: this.#lines })
    this.#lines = []
    this.#bytes = 0
  }
}

function bad(what: string): BadReplyError {
  return new BadReplyError(`the next hop does not speak SMTP: ${what}`, { remedy: 'retry' })
}

/** The reply as it is stored and passed on: one clean line, its enhanced code taken out. */
export function toReply({ code, lines }: HopReply): Reply {
  const digit = String(code).charAt(0)
  let enhanced = ''
  const texts = lines.map((line) => {
    const found = ENHANCED.exec(line)
    if (found === null || found[1]?.charAt(0) !== digit) return line
    enhanced ||= found[1]
    return line.slice(found[0].length)
  })
  return { code, enhanced, text: cleanReplyText(texts.join(' ')) }
}
