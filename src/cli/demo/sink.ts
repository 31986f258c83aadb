/** The "existing mail server" of the demo: takes every mail and remembers what came. */
import { SMTPServer } from 'smtp-server'
import { RefusalError } from '../../base/errors.ts'
import { codeOf } from '../../base/files.ts'
import { decodeText, fieldValue, plainLine, readHeader } from '../../message/header.ts'
import { formatAddress } from '../address.ts'
import type { Address } from '../world.ts'

/** One mail, however often it came. Text of strangers. */
export type Arrival = {
  readonly subject: string
  readonly from: string
  readonly recipients: readonly string[]
  readonly sizeBytes: number
  /** Wall ms when it came first. */
  readonly firstMs: number
  /** 1 for a mail that was delivered once. A copy for another recipient is not a second time. */
  readonly times: number
}

/** More mails than a demo shows; the oldest go first. */
const ARRIVALS_MAX = 500
const MAIL_BYTES_MAX = 64 * 1024 * 1024
const HEADER_BYTES_MAX = 64 * 1024
const CLIENTS_MAX = 50

export class Sink {
  readonly #server: SMTPServer
  readonly #wallMs: () => number
  /** By Message-ID, in the order of arrival. */
  readonly #arrivals = new Map<string, Arrival & { readonly copies: Map<string, number> }>()

  constructor(wallMs: () => number) {
    this.#wallMs = wallMs
    this.#server = new SMTPServer({
      name: 'sink.example',
      banner: 'The mail server behind Postern',
      logger: false,
      // Its own key is public: without one of ours there is no TLS rather than a pretended one.
      hideSTARTTLS: true,
      disabledCommands: ['AUTH', 'STARTTLS'],
      disableReverseLookup: true,
      maxClients: CLIENTS_MAX,
      size: MAIL_BYTES_MAX,
      onData: (stream, session, done) => {
        const pieces: Buffer[] = []
        let kept = 0
        let size = 0
        stream.on('data', (piece: Buffer) => {
          size += piece.length
          if (kept >= HEADER_BYTES_MAX) return
          pieces.push(piece)
          kept += piece.length
        })
        stream.on('end', () => {
          const recipients = session.envelope.rcptTo.map(({ address }) => address)
          this.#keep(Buffer.concat(pieces), size, recipients)
          done()
        })
      },
    })
    // A session that breaks is the business of its client.
    this.#server.on('error', () => {})
  }

  /** @throws RefusalError when the port is taken, naming it and the option */
  listen(address: Address, option: string): Promise<Address> {
    return new Promise((resolve, reject) => {
      const refuse = (error: Error) => reject(portRefusal(error, address, option))
      this.#server.once('error', refuse)
      this.#server.listen(address.port, address.host, () => {
        this.#server.off('error', refuse)
        const bound = this.#server.server.address()
        const port = typeof bound === 'object' && bound !== null ? bound.port : address.port
        resolve({ host: address.host, port })
      })
    })
  }

  /** Newest first. */
  arrivals(): readonly Arrival[] {
    return [...this.#arrivals.values()].reverse()
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve())
      for (const connection of this.#server.connections) connection.close()
    })
  }

  #keep(start: Buffer, sizeBytes: number, recipients: readonly string[]): void {
    const header = readHeader(start, 0, start.length, HEADER_BYTES_MAX)
    const text = (name: string) => plainLine(decodeText(fieldValue(header, name) ?? ''), 500)
    const id = text('message-id') || `none ${Bun.hash(start).toString(16)}`
    const before = this.#arrivals.get(id)
    const copies = before?.copies ?? new Map<string, number>()
    for (const recipient of recipients) copies.set(recipient, (copies.get(recipient) ?? 0) + 1)
    this.#arrivals.set(id, {
      subject: text('subject'),
      from: text('from'),
      recipients: [...copies.keys()],
      sizeBytes,
      firstMs: before?.firstMs ?? this.#wallMs(),
      times: Math.max(...copies.values()),
      copies,
    })
    const oldest = this.#arrivals.keys().next().value
    if (this.#arrivals.size > ARRIVALS_MAX && oldest !== undefined) this.#arrivals.delete(oldest)
  }
}

/** What to say when a listener of the demo cannot be opened. */
export function portRefusal(error: unknown, address: Address, option: string): RefusalError {
  const where = formatAddress(address)
  const why =
    codeOf(error) === 'EADDRINUSE'
      ? `Port ${address.port} is in use: another program listens on ${where}.`
      : `${where} cannot be opened (${codeOf(error) || 'no reason given'}).`
  return new RefusalError(
    'conflict',
    option.replace(/^--/, ''),
    why,
    `Stop it, or choose another: ${option} ${address.host}:PORT.`,
  )
}
