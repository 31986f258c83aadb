/** Names as a dependency: the Resolver interface, its error classes, the system resolver. */
import { Resolver as DnsResolver } from 'node:dns/promises'
import { isIP } from 'node:net'
import { type Clock, within } from './clock.ts'
import type { NameServer } from './dns-wire.ts'
import { GatewayError, messageOf } from './errors.ts'

/** The name or type does not exist: an answer, not a failure. */
export class NoSuchNameError extends GatewayError {
  override name = 'NoSuchNameError'
}

export type MxRecord = { readonly preference: number; readonly host: string }

export interface Resolver {
  /**
   * IPv4 and IPv6 addresses of `name`, without the trailing dot; IPv4 first.
   * @throws NoSuchNameError when there is none
   * @throws GatewayError with remedy `retry` on SERVFAIL or timeout
   */
  addresses(name: string): Promise<readonly string[]>
  /** Mail exchangers, unsorted; a null MX (RFC 7505) has the host ''. Errors as `addresses`. */
  mx(name: string): Promise<readonly MxRecord[]>
}

/** No answer from the name servers: SERVFAIL, REFUSED, a timeout. Trying again may help. */
export class NameServerError extends GatewayError {
  override name = 'NameServerError'
}

/** Longest wait for one question, all name servers together: RFC 5321 sets no time, an attempt must end. */
const ANSWER_MS_MAX = 15_000
/** A name server that is silent this long is asked once more, then the next one. */
const SERVER_MS_MAX = 3_000
/** Records of one answer that are looked at; more is an attack or a mistake. */
const RECORDS_MAX = 100
/** What c-ares says when the name or the type does not exist. Anything else is worth another try. */
const ABSENT = new Set([
  'ENOTFOUND',
  'ENODATA',
  'DNS_ENOTFOUND',
  'DNS_ENODATA',
  'EBADNAME',
  'DNS_EBADNAME',
])

export class SystemResolver implements Resolver {
  readonly #clock: Clock
  readonly #servers: () => readonly NameServer[]
  #resolver = newResolver([])
  /** Those that the resolver asks; none: those of the system. */
  #asked: readonly NameServer[] = []

  /**
   * `servers` is asked for each question; none: those of the system, with its hosts file. The same
   * array as long as they are the same.
   */
  constructor(clock: Clock, servers: () => readonly NameServer[] = () => []) {
    this.#clock = clock
    this.#servers = servers
  }

  async addresses(name: string): Promise<readonly string[]> {
    if (isIP(name) !== 0) return [name]
    this.#look()
    return await this.#bounded(name, this.#addresses(name))
  }

  async mx(name: string): Promise<readonly MxRecord[]> {
    this.#look()
    const records = await this.#bounded(name, this.#resolver.resolveMx(name))
    return records
      .slice(0, RECORDS_MAX)
      .map(({ priority, exchange }) => ({ preference: priority, host: withoutDot(exchange) }))
  }

  /** Questions that run go on with the servers that they began with. */
  #look(): void {
    const servers = this.#servers()
    if (servers === this.#asked || servers.length + this.#asked.length === 0) return
    this.#asked = servers
    this.#resolver = newResolver(servers)
  }

  async #addresses(name: string): Promise<readonly string[]> {
    if (this.#asked.length === 0) {
      // The hosts file counts for next hops. A failure here does not tell SERVFAIL from
      // NXDOMAIN, so the questions below decide what it was.
      const found = await Bun.dns.lookup(name, { backend: 'c-ares' }).catch(() => [])
      if (found.length > 0) return familyFirst(found.map(({ address }) => address))
    }
    const [v4, v6] = await Promise.allSettled([
      this.#resolver.resolve4(name),
      this.#resolver.resolve6(name),
    ])
    const found = [v4, v6].flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []))
    if (found.length > 0) return familyFirst(found)
    for (const answer of [v4, v6]) {
      if (answer.status === 'rejected' && !isAbsent(answer.reason)) throw answer.reason
    }
    throw new NoSuchNameError(`${name} has no address`, { remedy: 'give-up' })
  }

  #bounded<T>(name: string, answer: Promise<T>): Promise<T> {
    const told = answer.catch((cause) => {
      throw typed(name, cause)
    })
    const late = () => new NameServerError(`no answer about ${name} in time`, { remedy: 'retry' })
    return within(this.#clock, ANSWER_MS_MAX, told, late)
  }
}

function newResolver(servers: readonly NameServer[]): DnsResolver {
  const resolver = new DnsResolver({ timeout: SERVER_MS_MAX, tries: 2 })
  if (servers.length > 0) {
    resolver.setServers(
      servers.map(({ host, port }) => `${host.includes(':') ? `[${host}]` : host}:${port}`),
    )
  }
  return resolver
}

function familyFirst(addresses: readonly string[]): string[] {
  const all = [...new Set(addresses)].slice(0, RECORDS_MAX)
  return [...all.filter((ip) => isIP(ip) === 4), ...all.filter((ip) => isIP(ip) === 6)]
}

function isAbsent(error: unknown): boolean {
  return error instanceof Error && 'code' in error && ABSENT.has(String(error.code))
}

function typed(name: string, cause: unknown): GatewayError {
  if (cause instanceof GatewayError) return cause
  if (isAbsent(cause)) {
    return new NoSuchNameError(`${name} does not exist`, { remedy: 'give-up', cause })
  }
  return new NameServerError(`name server: ${messageOf(cause)}`, { remedy: 'retry', cause })
}

function withoutDot(name: string): string {
  return name.endsWith('.') ? name.slice(0, -1) : name
}
