/** The smallest SMTP client that sends the sample mails: one session, one command at a time. */
import { connect, type Socket } from 'node:net'
import type { Clock } from '../../base/clock.ts'
import { GatewayError, messageOf } from '../../base/errors.ts'
import type { Address } from '../world.ts'
import type { Sample } from './samples.ts'

/** Longest wait for one reply. The reply to the last dot waits for the inspectors. */
const REPLY_MS_MAX = 60_000
const REPLY_CHARS_MAX = 16_384

class SendError extends GatewayError {
  override name = 'SendError'
}

/**
 * Sends the samples in one session; the last reply to each, in their order. A refusal is a
 * reply as well. @throws SendError when there is no session, or it breaks
 */
export async function sendMails(
  mails: readonly Sample[],
  address: Address,
  clock: Clock,
): Promise<readonly string[]> {
  const session = new Session(connect(address), clock)
  try {
    await session.reply()
    await session.command('EHLO demo.example')
    const replies: string[] = []
    for (const mail of mails) replies.push(await sendOne(session, mail))
    await session.command('QUIT')
    return replies
  } finally {
    session.close()
  }
}

async function sendOne(session: Session, mail: Sample): Promise<string> {
  const commands = [
    `MAIL FROM:<${mail.sender}>`,
    ...mail.recipients.map((recipient) => `RCPT TO:<${recipient}>`),
    'DATA',
  ]
  for (const command of commands) {
    const reply = await session.command(command)
    if (/^[23]/.test(reply)) continue
    await session.command('RSET')
    return reply
  }
  const stuffed = mail.text.replace(/^\./gm, '..')
  return await session.command(stuffed.endsWith('\r\n') ? `${stuffed}.` : `${stuffed}\r\n.`)
}

class Session {
  readonly #socket: Socket
  readonly #clock: Clock
  #text = ''
  #broken: string | null = null
  #wake: () => void = () => {}

  constructor(socket: Socket, clock: Clock) {
    this.#socket = socket
    this.#clock = clock
    socket.setEncoding('latin1')
    socket.on('data', (piece: string) => {
      this.#text += piece
      if (this.#text.length > REPLY_CHARS_MAX) this.#fail('a reply without an end')
      this.#wake()
    })
    socket.on('error', (error) => this.#fail(messageOf(error)))
    socket.on('close', () => this.#fail('the session was closed'))
  }

  async command(line: string): Promise<string> {
    this.#socket.write(`${line}\r\n`)
    return await this.reply()
  }

  /** The last line of the next reply. @throws SendError */
  async reply(): Promise<string> {
    const timer = this.#clock.after(REPLY_MS_MAX, () => this.#fail('no reply in time'))
    try {
      for (;;) {
        const match = /^(?:\d{3}-.*\r\n)*(\d{3}(?: .*)?)\r\n/.exec(this.#text)
        if (match !== null) {
          this.#text = this.#text.slice(match[0].length)
          return match[1] ?? ''
        }
        if (this.#broken !== null) throw new SendError(this.#broken, { remedy: 'retry' })
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    } finally {
      timer.cancel()
    }
  }

  #fail(cause: string): void {
    this.#broken ??= cause
    this.#wake()
  }

  close(): void {
    this.#socket.destroy()
  }
}
