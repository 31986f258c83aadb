/**
 * Where short links lead, asked of the shorteners themselves by the main process. Only hosts of
 * the list are asked, only for the head of an answer, and only at addresses of the public
 * network: a mail must not make this machine knock at doors behind the wall. The address that
 * was checked is the one that is connected to, so a name that changes meanwhile gains nothing.
 */
import { isIP, connect as netConnect, type Socket } from 'node:net'
import { connect as tlsConnect } from 'node:tls'
import type { Clock } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { DnsAnswer, DnsQuestion, Names } from '../../base/names.ts'
import { NetworkIndex } from '../../config/networks.ts'
import { plainLine } from '../../message/header.ts'
import { SHORTENERS } from './places.ts'
import { askedLink } from './short.ts'
import { URL_CHARS_MAX } from './urls.ts'

/** Opens a connection to `address`, a checked one. `serverName`: by TLS, for this name. */
export type Connect = (address: string, port: number, serverName: string | null) => Socket

export type ExpandDeps = {
  readonly names: Names
  readonly clock: Clock
  readonly connect?: Connect
  /** Whether the settings want it: a child that asks all the same gets no answer. */
  readonly isOn: () => boolean
  /** Hosts that are asked; left out: the known shorteners. */
  readonly hosts?: ReadonlySet<string>
}

/** Time for a link with all its hops. */
const LIMIT_MS = 4_000
const HOPS_MAX = 2
/** Octets of an answer's head. */
const HEAD_BYTES_MAX = 16 * 1024
/** Links that are followed at a time; who comes later is told that nobody knows. */
const RUNNING_MAX = 16
const KEPT_MAX = 2_000
const KEPT_MS = 3_600_000

/** Everything that is not the public network (RFC 6890 and its registries). */
const CLOSED = new NetworkIndex([
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.31.196.0/24',
  '192.52.193.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '192.175.48.0/24',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/3',
  // Of IPv6 only 2000::/3 is public, and in it not what carries an IPv4 address or is reserved.
  '::/3',
  '2001::/23',
  '2001:db8::/32',
  '2002::/16',
  '3fff::/20',
  '4000::/2',
  '8000::/1',
])

/** An address of the public network, of either family; not a name. */
export function isPublicAddress(address: string): boolean {
  return isIP(address) !== 0 && CLOSED.find(address) === null
}

type Kept = { readonly answer: DnsAnswer; readonly untilMs: number }

/** `query` answers questions of short.ts and hands all others on. */
export class Expander implements Names {
  readonly #deps: ExpandDeps
  readonly #hosts: ReadonlySet<string>
  readonly #kept = new Map<string, Kept>()
  #running = 0

  constructor(deps: ExpandDeps) {
    this.#deps = deps
    this.#hosts = deps.hosts ?? SHORTENERS
  }

  async query(question: DnsQuestion): Promise<DnsAnswer> {
    const url = askedLink(question)
    if (url === null) return this.#deps.names.query(question)
    return this.#deps.isOn() ? this.expand(url) : failed('the settings do not want it')
  }

  /**
   * `found`: where the link leads, one record; `absent`: it leads nowhere else. Never rejects and
   * takes at most 4 s. Answers are kept for an hour, failures are not.
   */
  async expand(url: string): Promise<DnsAnswer> {
    const { clock } = this.#deps
    const kept = this.#kept.get(url)
    if (kept !== undefined && kept.untilMs > clock.monoMs()) return kept.answer
    if (this.#running >= RUNNING_MAX) return failed('too many short links are asked about')
    this.#running += 1
    const end = new AbortController()
    const timer = clock.after(LIMIT_MS, () => end.abort())
    try {
      const answer = await this.#follow(url, end.signal)
      if (this.#kept.size >= KEPT_MAX) this.#kept.clear()
      this.#kept.set(url, { answer, untilMs: clock.monoMs() + KEPT_MS })
      return answer
    } catch (error) {
      return failed(end.signal.aborted ? 'the shortener did not answer' : messageOf(error))
    } finally {
      timer.cancel()
      this.#running -= 1
    }
  }

  async #follow(start: string, end: AbortSignal): Promise<DnsAnswer> {
    let at = start
    for (let hop = 0; hop < HOPS_MAX; hop += 1) {
      const url = URL.parse(at)
      // Beyond the shorteners nothing is fetched: the place itself is what was asked for.
      if (url === null || !this.#hosts.has(url.hostname)) break
      const location = await this.#ask(url, end)
      if (location === null) break
      const next = URL.parse(location, at)
      if (next === null || !/^https?:$/.test(next.protocol)) break
      at = next.href.slice(0, URL_CHARS_MAX)
    }
    return at === start ? { status: 'absent' } : { status: 'found', records: [at] }
  }

  /** The `Location` of the answer to HEAD, or to GET where that is refused; null: there is none. */
  async #ask(url: URL, end: AbortSignal): Promise<string | null> {
    const secure = url.protocol === 'https:'
    if (!secure && url.protocol !== 'http:') throw new Error(`${url.protocol} is not asked`)
    if (url.port !== '' || url.username !== '' || url.password !== '') {
      throw new Error('a short link has no port and no password')
    }
    const address = await this.#address(url.hostname, end)
    for (const method of ['HEAD', 'GET'] as const) {
      const socket = this.#dial(address, secure ? 443 : 80, secure ? url.hostname : null)
      const head = await exchange(socket, `${method} ${url.pathname}${url.search}`, url.host, end)
      const status = Number(/^HTTP\/1\.[01] (\d{3})\b/.exec(head)?.[1] ?? '0')
      if (status === 0) throw new Error('the shortener answers in no HTTP')
      if (status >= 300 && status < 400) {
        return /\r?\nlocation:[ \t]*([^\r\n]+)/i.exec(head)?.[1]?.trim() ?? null
      }
      if (status < 400) return null
      if (method === 'GET' || status === 404 || status === 410) {
        if (status === 404 || status === 410) return null
        throw new Error(`the shortener answers ${status}`)
      }
    }
    return null
  }

  #dial(address: string, port: number, serverName: string | null): Socket {
    return (this.#deps.connect ?? dial)(address, port, serverName)
  }

  /** A public address of `host`. One that is not public refuses them all: such a name is a trap. */
  async #address(host: string, end: AbortSignal): Promise<string> {
    const { names } = this.#deps
    const answers = await Promise.race([
      Promise.all([
        names.query({ name: host, type: 'A' }),
        names.query({ name: host, type: 'AAAA' }),
      ]),
      aborted(end),
    ])
    const addresses = answers.flatMap((answer) => (answer.status === 'found' ? answer.records : []))
    const closed = addresses.find((address) => !isPublicAddress(address))
    if (closed !== undefined) {
      throw new Error(`${host} has the address ${plainLine(closed, 50)}, which is not public`)
    }
    const [first] = addresses
    if (first === undefined) throw new Error(`${host} has no address`)
    return first
  }
}

function failed(cause: string): DnsAnswer {
  return { status: 'failed', cause: plainLine(cause, 200) }
}

function dial(address: string, port: number, serverName: string | null): Socket {
  return serverName === null
    ? netConnect({ host: address, port })
    : tlsConnect({ host: address, port, servername: serverName })
}

async function aborted(end: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const stop = (): void => reject(new Error('the time is over'))
    if (end.aborted) stop()
    else end.addEventListener('abort', stop, { once: true })
  })
}

/** Sends one request and reads the head of its answer; the body is never read. */
function exchange(socket: Socket, line: string, host: string, end: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    let head = ''
    let done = false
    const finish = (error: Error | null): void => {
      if (done) return
      done = true
      end.removeEventListener('abort', stop)
      socket.destroy()
      if (error === null) resolve(head)
      else reject(error)
    }
    const stop = (): void => finish(new Error('the time is over'))
    if (end.aborted) {
      stop()
      return
    }
    end.addEventListener('abort', stop, { once: true })
    socket.on('error', (error) => finish(error))
    socket.on('close', () => finish(head === '' ? new Error('the shortener hung up') : null))
    socket.on('data', (piece: Buffer) => {
      head += piece.toString('latin1')
      const last = /\r?\n\r?\n/.exec(head)
      if (last !== null && last.index <= HEAD_BYTES_MAX) {
        head = head.slice(0, last.index)
        finish(null)
      } else if (head.length > HEAD_BYTES_MAX)
        finish(new Error('the head of the answer is too long'))
    })
    socket.write(
      `${line} HTTP/1.1\r\nHost: ${host}\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\nConnection: close\r\n\r\n`,
    )
  })
}
