/** One message over one connection: MAIL, RCPT, DATA, the bytes, an outcome for each recipient. */
import { isAscii } from 'node:buffer'
import { GatewayError, messageOf } from '../../base/errors.ts'
import { HEADER_BYTES_MAX } from '../../base/limits.ts'
import { bodySize } from '../../message/body.ts'
import type { Recipient } from '../../message/envelope.ts'
import type { Outcome } from '../../message/outcome.ts'
import { formatReply, type Reply, reply } from '../../message/reply.ts'
import { type Capabilities, type Client, LinkError } from './client.ts'
import type { Delivery } from './contract.ts'
import { BadReplyError, type HopReply, toReply } from './reader.ts'
import { BodyReadError, bodyPieces, DotStuffer, NotCanonicalError } from './wire.ts'

/** A delivery with what is made once for all the hops that it may try. */
export type Mail = {
  readonly delivery: Delivery
  /** The whole message in wire form; null when it is too large to be kept in memory. */
  readonly whole: Buffer | null
  /** Begins `beforeDot` when first called; the same promise ever after. */
  readonly marks: () => Promise<void>
}

/** In place of a next hop's reply to what would be two messages to some servers. */
export const NOT_CANONICAL = reply(554, '5.6.11', 'The message has a bare CR, a bare LF or a NUL')

/** The marks could not be made durable: no dot may leave. */
class MarksError extends GatewayError {
  override name = 'MarksError'
}

/**
 * One outcome a recipient, in their order.
 * @throws LinkError, BadReplyError when the connection failed before the final dot: nothing was
 *   taken, another hop may be asked
 */
export async function transact(client: Client, mail: Mail): Promise<Outcome[]> {
  client.hasAnsweredMail = false
  const unfit = await whyUnfit(client.capabilities, mail)
  if (unfit !== null) return mail.delivery.recipients.map(() => never(client, unfit))
  return await new Transaction(client, mail).run()
}

const DATA = 'DATA\r\n'

class Transaction {
  readonly #client: Client
  readonly #mail: Mail
  readonly #pipelined: boolean
  /** By index of the recipient; null: still to be decided. */
  readonly #outcomes: (Outcome | null)[]

  constructor(client: Client, mail: Mail) {
    this.#client = client
    this.#mail = mail
    this.#pipelined = client.capabilities.pipelining
    this.#outcomes = mail.delivery.recipients.map(({ address }) =>
      isSafe(address) ? null : never(client, reply(553, '5.1.3', 'Bad recipient address')),
    )
    if (!isSafe(mail.delivery.sender)) {
      this.#decideAll(never(client, reply(553, '5.1.7', 'Bad sender address')))
    }
  }

  async run(): Promise<Outcome[]> {
    const asked = this.#undecided()
    if (asked.length > 0 && (await this.#envelope(asked))) await this.#content()
    return this.#outcomes as Outcome[]
  }

  /** MAIL, RCPT, DATA. True when the next hop waits for the message. */
  async #envelope(asked: readonly number[]): Promise<boolean> {
    const { delivery, marks } = this.#mail
    const client = this.#client
    const reset = client.needsReset ? 'RSET\r\n' : ''
    const mailLine = mailCommand(client.capabilities, this.#mail)
    const rcptLines = asked.map((index) =>
      rcptCommand(client.capabilities, delivery.recipients[index] as Recipient, delivery.smtpUtf8),
    )
    if (this.#pipelined) {
      client.send(Buffer.from(`${reset}${mailLine}${rcptLines.join('')}${DATA}`))
    }
    // A failure is met where the marks are awaited, before the dot.
    marks().catch(() => undefined)
    if (reset !== '') await this.#ask(reset)
    client.needsReset = true
    const mailAnswer = await this.#ask(mailLine)
    client.hasAnsweredMail = true
    if (mailAnswer.code >= 300) {
      this.#decideAll(byReply(client, mailAnswer))
      if (this.#pipelined) await this.#skip(rcptLines.length + 1)
      return false
    }
    for (const [place, index] of asked.entries()) {
      const answer = await this.#ask(rcptLines[place] as string)
      if (answer.code >= 300) this.#outcomes[index] = byReply(client, softened(answer))
    }
    if (this.#undecided().length === 0) {
      if (this.#pipelined) await this.#skip(1)
      return false
    }
    const go = await this.#ask(DATA)
    if (go.code === 354) return true
    this.#decideAll(byReply(client, go))
    return false
  }

  /** The bytes, the dot, the answers to it. */
  async #content(): Promise<void> {
    try {
      const early = await this.#bytes()
      if (early !== null) {
        // The rest of the message would be read as commands.
        this.#client.abandon()
        if (early.code < 400) throw outOfPlace(early)
        this.#decideAll(byReply(this.#client, early))
        return
      }
    } catch (error) {
      this.#client.abandon()
      if (error instanceof NotCanonicalError) {
        this.#decideAll(never(this.#client, NOT_CANONICAL))
      } else if (error instanceof BodyReadError) {
        this.#decideAll(later(this.#client, error.message))
      } else if (error instanceof MarksError) {
        // Not even a refusal counts: without marks nothing of this attempt is on record.
        this.#outcomes.fill(later(this.#client, error.message))
      } else throw error
      return
    }
    await this.#answers()
  }

  /** Sends everything. A reply means that the next hop spoke before the end. */
  async #bytes(): Promise<HopReply | null> {
    const { delivery, whole } = this.#mail
    const client = this.#client
    if (whole !== null) {
      await this.#marks()
      client.send(whole)
      return null
    }
    const stuffer = new DotStuffer()
    // The last piece is kept back, to go out with the dot once the marks are durable.
    let held = stuffer.next(Buffer.from(delivery.prepend))
    for await (const piece of bodyPieces(delivery.body)) {
      if (held.length > 0) {
        client.send(held)
        if (!(await client.flushed())) return await client.reply()
      }
      held = stuffer.next(piece)
    }
    const end = stuffer.end()
    await this.#marks()
    client.send(Buffer.concat([held, end]))
    return null
  }

  async #marks(): Promise<void> {
    const spared = this.#outcomes.flatMap((outcome, index) => (outcome === null ? [] : [index]))
    try {
      await this.#mail.marks()
      if (spared.length > 0) await this.#mail.delivery.spared?.(spared)
    } catch (cause) {
      const text = `the attempt cannot be recorded: ${messageOf(cause)}`
      throw new MarksError(text, { remedy: 'retry', cause })
    }
    // Minutes may have passed since, with a large body or a process that stood still.
    if (this.#mail.delivery.mayDot?.() !== false) return
    throw new MarksError('another node may have taken the message over', { remedy: 'retry' })
  }

  async #answers(): Promise<void> {
    const client = this.#client
    const afterDotMs = client.timeoutMs * 2
    try {
      if (client.address.protocol === 'smtp') {
        this.#decideAll(this.#afterDot(await client.reply(afterDotMs)))
      } else {
        // RFC 2033 section 4.2: one reply for each recipient that was taken, in their order.
        for (const index of this.#undecided()) {
          this.#outcomes[index] = this.#afterDot(await client.reply(afterDotMs))
        }
      }
      client.needsReset = false
      client.messages += 1
    } catch (error) {
      if (!(error instanceof GatewayError)) throw error
      client.abandon()
      this.#decideAll({ ...later(client, error.message), dotSent: !client.hasUnsent })
    }
  }

  #afterDot(answer: HopReply): Outcome {
    const isTooEarly = answer.code < 300 && this.#client.hasUnsent
    if (isTooEarly || (answer.code >= 300 && answer.code < 400)) throw outOfPlace(answer)
    return byReply(this.#client, answer)
  }

  /** The answer to a command, which is already out when commands are pipelined. */
  async #ask(line: string): Promise<HopReply> {
    if (!this.#pipelined) this.#client.send(Buffer.from(line))
    const answer = await this.#client.reply()
    // 421 means that the connection ends, whatever the command was (RFC 5321 section 3.8).
    if (answer.code === 421) {
      throw new LinkError(formatReply(toReply(answer)), { remedy: 'retry' })
    }
    // Only DATA is answered with 354, and with no other good news.
    const isGood = line === DATA ? answer.code === 354 : answer.code < 300
    if (!isGood && answer.code < 400) throw outOfPlace(answer)
    return answer
  }

  /** Answers to commands that no longer matter. The outcomes stand, whatever happens here. */
  async #skip(count: number): Promise<void> {
    try {
      for (let left = count; left > 0; left--) {
        const answer = await this.#client.reply()
        // The next hop waits for a message that has no recipient: it gets none.
        if (left === 1 && answer.code === 354) this.#client.abandon()
      }
    } catch (error) {
      if (!(error instanceof GatewayError)) throw error
      this.#client.abandon()
    }
  }

  #undecided(): number[] {
    return this.#outcomes.flatMap((outcome, index) => (outcome === null ? [index] : []))
  }

  #decideAll(outcome: Outcome): void {
    for (const index of this.#undecided()) this.#outcomes[index] = outcome
  }
}

function byReply(client: Client, answer: HopReply): Outcome {
  const said = toReply(answer)
  if (answer.code >= 500) return never(client, said)
  if (answer.code >= 400) return later(client, formatReply(said))
  const { dsn } = client.capabilities
  return { kind: 'delivered', host: client.label, tls: client.tls, reply: said, dsnPassedOn: dsn }
}

function outOfPlace(answer: HopReply): BadReplyError {
  const text = `an answer out of place: ${formatReply(toReply(answer))}`
  return new BadReplyError(text, { remedy: 'retry' })
}

function later(client: Client, cause: string): Outcome & { kind: 'later' } {
  return { kind: 'later', host: client.label, cause, dotSent: false }
}

function never(client: Client, said: Reply): Outcome {
  return { kind: 'never', host: client.label, reply: said }
}

/** RFC 5321 section 4.5.3.1.10: a 552 to RCPT means too many recipients, as 452 does. */
function softened(answer: HopReply): HopReply {
  if (answer.code !== 552) return answer
  const { enhanced } = toReply(answer)
  return enhanced === '' || enhanced === '5.5.3' ? { ...answer, code: 452 } : answer
}

/** No character that would end a command or begin another one. */
function isSafe(address: string): boolean {
  return !/[\x00-\x1f\x7f]/.test(address)
}

/** A DSN parameter that can stand in a command; what cannot is left out. */
function parameter(name: string, value: string | null, utf8: boolean): string {
  if (value === null || value === '') return ''
  const isAllowed = !/[\x00-\x20\x7f]/.test(value) && (utf8 || isPlain(value))
  return isAllowed ? ` ${name}=${value}` : ''
}

function isPlain(text: string): boolean {
  return !/[^\x20-\x7e]/.test(text)
}

function mailCommand(offers: Capabilities, { delivery }: Mail): string {
  const utf8 = offers.smtpUtf8 && delivery.smtpUtf8
  let line = `MAIL FROM:<${delivery.sender}>`
  if (offers.size) line += ` SIZE=${messageBytes(delivery)}`
  if (offers.eightBit && delivery.eightBit) line += ' BODY=8BITMIME'
  if (utf8) line += ' SMTPUTF8'
  if (offers.dsn)
    line += parameter('RET', delivery.ret, false) + parameter('ENVID', delivery.envid, utf8)
  return `${line}\r\n`
}

function rcptCommand(offers: Capabilities, recipient: Recipient, smtpUtf8: boolean): string {
  let line = `RCPT TO:<${recipient.address}>`
  if (offers.dsn) {
    line += parameter('NOTIFY', recipient.notify, false)
    line += parameter('ORCPT', recipient.orcpt, offers.smtpUtf8 && smtpUtf8)
  }
  return `${line}\r\n`
}

function messageBytes({ prepend, body }: Delivery): number {
  return Buffer.byteLength(prepend) + bodySize(body)
}

/** The reply that refuses in place of a hop that cannot carry this message; null: it can. */
async function whyUnfit(offers: Capabilities, { delivery }: Mail): Promise<Reply | null> {
  if (offers.sizeMax !== null && messageBytes(delivery) > offers.sizeMax) {
    return reply(552, '5.3.4', 'Message too big for the next mail server')
  }
  if (!offers.smtpUtf8 && (await needsSmtpUtf8(delivery))) {
    // RFC 6531 section 3.1: such a message is never made into another one (faults.md C10).
    return reply(553, '5.6.7', 'The next mail server does not take internationalized mail')
  }
  if (!offers.eightBit && delivery.eightBit && !(await isSevenBit(delivery))) {
    return reply(554, '5.6.3', 'The next mail server does not take 8-bit content')
  }
  return null
}

/** An address or a header line is not ASCII. The parameter alone is no need (RFC 6531, 3.1). */
async function needsSmtpUtf8(delivery: Delivery): Promise<boolean> {
  const { sender, recipients, prepend, smtpUtf8 } = delivery
  if (!isPlain(sender) || recipients.some(({ address }) => !isPlain(address))) return true
  if (!smtpUtf8) return false
  // `prepend` ends in a line end, so a body that begins with an empty line has no header.
  const head = [Buffer.from(prepend)]
  let seenBytes = 0
  for await (const piece of bodyPieces(delivery.body)) {
    head.push(Buffer.from(piece))
    seenBytes += piece.length
    if (seenBytes >= HEADER_BYTES_MAX) break
  }
  const bytes = Buffer.concat(head)
  const end = bytes.indexOf('\r\n\r\n')
  return !isAscii(end < 0 ? bytes : bytes.subarray(0, end))
}

async function isSevenBit(delivery: Delivery): Promise<boolean> {
  if (!isAscii(Buffer.from(delivery.prepend))) return false
  for await (const piece of bodyPieces(delivery.body)) {
    if (!isAscii(piece)) return false
  }
  return true
}
