/**
 * Recipients in LDAP directories (RFC 4511), by ldapts: searches, filters and connections are its
 * work. Nobody is refused for a directory that does not answer. The password is read from a file
 * of the node and stands in no setting.
 */
import type { Client } from 'ldapts'
import { type Clock, within } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import { Expiring } from '../../base/expiring.ts'
import type { Observer } from '../../base/observe.ts'
import { type DirectoryLine, parseDirectory } from '../../config/lines.ts'

/** A directory is cheap to ask: what is new in it counts soon. */
const YES_MS = 3_600_000
const NO_MS = 300_000
/** A directory that does not answer is not asked for so long. */
const SILENT_MS = 60_000
const ADDRESSES_MAX = 20_000
/** Questions at a time. */
const ASKING_MAX = 20

export type DirectoryDeps = {
  readonly clock: Clock
  readonly observer: Observer
  /** For one question, all directories together. */
  readonly timeoutMs: () => number
  /** The text of a file of this node; null: it is not there. */
  readonly file: (name: 'ldap.password' | 'ldap.pem') => string | null
}

export class Directory {
  readonly #deps: DirectoryDeps
  readonly #answers: Expiring<boolean>
  readonly #silent: Expiring<true>
  /** By the line of the settings. */
  readonly #clients = new Map<string, Promise<Client>>()
  readonly #asking = new Map<string, Promise<boolean>>()

  constructor(deps: DirectoryDeps) {
    this.#deps = deps
    this.#answers = new Expiring(deps.clock, ADDRESSES_MAX)
    this.#silent = new Expiring(deps.clock, ADDRESSES_MAX)
  }

  /** False: all of them answer, and none has it. `lines` as `ldap.directories`. Never rejects. */
  has(address: string, lines: readonly string[]): boolean | Promise<boolean> {
    const key = `${address.toLowerCase()} ${lines.join(' ')}`
    const known = this.#answers.get(key)
    if (known !== undefined) return known
    const same = this.#asking.get(key)
    if (same !== undefined) return same
    if (this.#asking.size >= ASKING_MAX) return true
    if (lines.some((line) => this.#silent.get(line) !== undefined)) return true
    const answer = Promise.all(lines.map((line) => this.#ask(line, address)))
      .then((said) => {
        const isThere = said.includes(true)
        if (isThere) this.#answers.set(key, true, YES_MS)
        // One that did not answer may have it.
        else if (!said.includes(null)) this.#answers.set(key, false, NO_MS)
        return isThere || said.includes(null)
      })
      .finally(() => this.#asking.delete(key))
    this.#asking.set(key, answer)
    return answer
  }

  async close(): Promise<void> {
    const clients = [...this.#clients.values()]
    this.#clients.clear()
    await Promise.allSettled(clients.map(async (client) => await (await client).unbind()))
  }

  /** Null: no answer within the time. */
  async #ask(line: string, address: string): Promise<boolean | null> {
    const { clock, observer, timeoutMs } = this.#deps
    const directory = parseDirectory(line)
    if (directory === null) return null
    try {
      return await within(clock, timeoutMs(), this.#search(line, directory, address))
    } catch (error) {
      this.#silent.set(line, true, SILENT_MS)
      this.#clients.delete(line)
      observer.emit('recipient.unasked', { host: directory.url, cause: messageOf(error) })
      return null
    }
  }

  async #search(line: string, directory: DirectoryLine, address: string): Promise<boolean> {
    const opening = this.#clients.get(line) ?? this.#open(directory)
    this.#clients.set(line, opening)
    const client = await opening
    const { searchEntries } = await client.search(directory.base, {
      scope: directory.scope,
      filter: directory.filter.replaceAll('{address}', escaped(address)),
      // RFC 4511 section 4.5.1.8: no attribute, only whether it is there.
      attributes: ['1.1'],
      timeLimit: Math.ceil(this.#deps.timeoutMs() / 1_000),
    })
    return searchEntries.length > 0
  }

  /** Loaded when somebody uses it. */
  async #open({ url, bindName }: DirectoryLine): Promise<Client> {
    const { Client } = await import('ldapts')
    const timeoutMs = this.#deps.timeoutMs()
    const authority = this.#deps.file('ldap.pem')
    const tlsOptions = authority === null ? {} : { tlsOptions: { ca: authority } }
    const client = new Client({ url, timeout: timeoutMs, connectTimeout: timeoutMs, ...tlsOptions })
    if (bindName === '') return client
    const password = this.#deps.file('ldap.password')?.trimEnd() ?? ''
    // RFC 4513 section 5.1.2: with an empty password it would be anybody, and may find nobody.
    if (password === '') throw new Error('the file ldap.password is not there, or empty')
    await client.bind(bindName, password)
    return client
  }
}

/** RFC 4515 section 3. */
function escaped(value: string): string {
  return value.replace(/[\\*()\x00]/g, (character) => {
    const code = character.charCodeAt(0).toString(16).padStart(2, '0')
    return `\\${code}`
  })
}
