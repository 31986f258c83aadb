/** A raw SMTP client: sends exactly the bytes it is told, reads strict replies, can misbehave. */
import { readFileSync } from 'node:fs'
import net from 'node:net'
import tls from 'node:tls'
import { pause, SystemClock } from '../../src/base/clock.ts'

const clock = new SystemClock()
/** RFC 5321 section 4.5.3.1.5, with code and CRLF. */
const REPLY_LINE_OCTETS_MAX = 512

/** One reply: all of its lines without CRLF, and the code of the last one. */
export type WireReply = { readonly code: number; readonly lines: readonly string[] }

export type WireOptions = {
  readonly port: number
  readonly host?: string
  /** Source address of the connection; any of 127.0.0.0/8 on loopback. */
  readonly from?: string
}

class WireError extends Error {
  override name = 'WireError'
}

export class Wire {
  #socket: net.Socket
  readonly #plain: net.Socket
  #input = Buffer.alloc(0)
  #ended = false
  #closed = false
  #failure: Error | null = null
  #wake: (() => void) | null = null
  readonly #remotePort: number

  private constructor(socket: net.Socket, remotePort: number) {
    this.#socket = socket
    this.#plain = socket
    this.#remotePort = remotePort
    this.#listen(socket)
  }

  /** @throws the socket's error when nobody listens */
  static connect({ port, host = '127.0.0.1', from }: WireOptions): Promise<Wire> {
    return new Promise((resolve, reject) => {
      const socket = net.connect({
        port,
        host,
        allowHalfOpen: true,
        ...(from === undefined ? {} : { localAddress: from }),
      })
      socket.setNoDelay(true)
      socket.once('error', reject)
      // Made before the connection is: a banner may come in the same turn.
      const wire = new Wire(socket, port)
      socket.once('connect', () => {
        socket.off('error', reject)
        resolve(wire)
      })
    })
  }

  get localPort(): number {
    return this.#plain.localPort ?? 0
  }

  /** TLS version and cipher, or null in clear text. */
  get secured(): string | null {
    return this.#socket instanceof tls.TLSSocket ? (this.#socket.getProtocol() ?? null) : null
  }

  send(bytes: string | Uint8Array): void {
    this.#socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes)
  }

  /** Resolves when the kernel took all that was sent so far. */
  drained(): Promise<void> {
    return new Promise((resolve) => this.#socket.write('', () => resolve()))
  }

  /**
   * Sends each piece as a TCP segment of its own: the next one goes only when the other side
   * has read the one before (its receive queue in /proc/net/tcp is empty).
   */
  async sendSegments(pieces: readonly (string | Uint8Array)[]): Promise<void> {
    for (const piece of pieces) {
      this.send(piece)
      await this.drained()
      await this.#readByPeer()
    }
  }

  async #readByPeer(): Promise<void> {
    const mine = `:${this.localPort.toString(16).toUpperCase().padStart(4, '0')}`
    const theirs = `:${this.#remotePort.toString(16).toUpperCase().padStart(4, '0')}`
    for (let round = 0; round < 5_000; round += 1) {
      let waiting = false
      for (const line of readFileSync('/proc/net/tcp', 'latin1').split('\n')) {
        const [, local = '', remote = '', , queues = ''] = line.trim().split(/\s+/)
        const [unsent = '', unread = ''] = queues.split(':')
        if (local.endsWith(theirs) && remote.endsWith(mine) && !/^0+$/.test(unread)) waiting = true
        if (local.endsWith(mine) && remote.endsWith(theirs) && !/^0+$/.test(unsent)) waiting = true
      }
      if (!waiting) return
      await pause(clock, 1)
    }
    throw new WireError('the other side does not read')
  }

  /** The next whole reply. @throws WireError on close, timeout, or a malformed line */
  async reply(timeoutMs = 10_000): Promise<WireReply> {
    const lines: string[] = []
    for (;;) {
      const line = await this.#line(timeoutMs, lines)
      const match = /^(\d{3})([ -])?/.exec(line)
      if (match === null) throw new WireError(`not a reply: ${JSON.stringify(line)}`)
      lines.push(line)
      if (match[2] !== '-') return { code: Number(match[1]), lines }
      if (lines.length > 100) throw new WireError('a reply of more than 100 lines')
    }
  }

  async #line(timeoutMs: number, before: readonly string[]): Promise<string> {
    const deadline = clock.monoMs() + timeoutMs
    for (;;) {
      const at = this.#input.indexOf('\n')
      if (at >= 0) {
        const line = this.#input.subarray(0, at + 1)
        this.#input = this.#input.subarray(at + 1)
        if (line.length > REPLY_LINE_OCTETS_MAX)
          throw new WireError(`a reply line of ${line.length} octets`)
        if (line.at(-2) !== 13)
          throw new WireError(`a reply line with a bare LF: ${line.toString('latin1')}`)
        return line.subarray(0, -2).toString('latin1')
      }
      if (this.#ended || this.#closed) {
        throw new WireError(
          `closed ${this.#failure?.message ?? ''} after ${JSON.stringify(before)} and ${JSON.stringify(this.#input.toString('latin1'))}`,
        )
      }
      if (!(await this.#event(deadline - clock.monoMs()))) {
        throw new WireError(
          `no reply within ${timeoutMs} ms; so far ${JSON.stringify([...before, this.#input.toString('latin1')])}`,
        )
      }
    }
  }

  /** Resolves when the other side ended the connection. @throws WireError when it says more, or in time does not */
  async closed(timeoutMs = 10_000): Promise<'fin' | 'reset'> {
    const deadline = clock.monoMs() + timeoutMs
    while (!this.#ended && !this.#closed && this.#input.length === 0) {
      if (!(await this.#event(deadline - clock.monoMs())))
        throw new WireError(`not closed within ${timeoutMs} ms`)
    }
    if (this.#input.length > 0)
      throw new WireError(`more came: ${JSON.stringify(this.#input.toString('latin1'))}`)
    return this.#failure === null ? 'fin' : 'reset'
  }

  /** All that comes until the other side ends the connection, or `timeoutMs`. */
  async rest(timeoutMs: number): Promise<string> {
    const deadline = clock.monoMs() + timeoutMs
    while (!this.#ended && !this.#closed && (await this.#event(deadline - clock.monoMs())));
    const text = this.#input.toString('latin1')
    this.#input = Buffer.alloc(0)
    return text
  }

  /** Upgrades to TLS; what came in clear text and was not read yet is an error. @throws WireError */
  async startTls(version?: tls.SecureVersion): Promise<void> {
    if (this.#input.length > 0)
      throw new WireError(
        `clear text before TLS: ${JSON.stringify(this.#input.toString('latin1'))}`,
      )
    this.#plain.removeAllListeners('data')
    const secure = tls.connect({
      socket: this.#plain,
      rejectUnauthorized: false,
      ...(version === undefined ? {} : { minVersion: version, maxVersion: version }),
    })
    await new Promise<void>((resolve, reject) => {
      secure.once('secureConnect', () => resolve())
      secure.once('error', reject)
      secure.once('close', () => reject(new WireError('closed in the handshake')))
    })
    this.#socket = secure
    this.#listen(secure)
  }

  /** Sends FIN and goes on reading. */
  shut(): void {
    this.#socket.end()
  }

  /** Ends with RST. */
  reset(): void {
    this.#plain.resetAndDestroy()
  }

  drop(): void {
    this.#socket.destroy()
    this.#plain.destroy()
  }

  #listen(socket: net.Socket): void {
    socket.on('data', (bytes: Buffer) => {
      this.#input = Buffer.concat([this.#input, bytes])
      this.#wake?.()
    })
    socket.on('end', () => {
      this.#ended = true
      this.#wake?.()
    })
    socket.on('error', (error: Error) => {
      this.#failure = error
      this.#wake?.()
    })
    socket.on('close', () => {
      this.#closed = true
      this.#wake?.()
    })
  }

  /** True when something happened, false after `waitMs`. */
  #event(waitMs: number): Promise<boolean> {
    if (waitMs <= 0) return Promise.resolve(false)
    return new Promise((resolve) => {
      const timer = clock.after(waitMs, () => {
        this.#wake = null
        resolve(false)
      })
      this.#wake = () => {
        timer.cancel()
        this.#wake = null
        resolve(true)
      }
    })
  }
}

/** Says a mail to bob@example.com, whatever its lines end with; gives the answer to its dot. */
export async function sayMail(port: number, raw: Buffer): Promise<string> {
  const wire = await Wire.connect({ port })
  const say = async (line: string): Promise<string> => {
    wire.send(`${line}\r\n`)
    return (await wire.reply()).lines.at(-1) ?? ''
  }
  await wire.reply()
  await say('EHLO client.example')
  await say('MAIL FROM:<ann@sender.example>')
  await say('RCPT TO:<bob@example.com>')
  await say('DATA')
  const text = raw.toString('latin1').replace(/\r?\n/g, '\r\n').replace(/^\./gm, '..')
  const said = await say(`${text}\r\n.`)
  wire.drop()
  return said
}
