/**
 * Secrets that all nodes share: each is sealed for every member by itself, in rows that travel as
 * all others do and are readable by nobody else. A member that comes later gets it from whichever
 * node can open it; of one that was removed nothing stays, and what it could read is told.
 *
 * A box: the public key of a pair made for it, then XChaCha20-Poly1305 under a key of both
 * (X25519, RFC 7748) and of the name and the member, so that no box can be given out as another.
 */
import { assert } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'
import type { Random } from '../base/random.ts'
import { headInForce } from '../config/merge.ts'
import type { SharedRows } from '../store/shared.ts'
import type { Member, Roster } from './contract.ts'
import { agree, deriveKey, newExchangePair, openX, sealX, XNONCE_BYTES } from './seal.ts'

const KIND = 'sealed'
const KEY_BYTES = 32
/** Names: lower case, without the slash that parts them from the member. */
const NAME = /^[a-z0-9][a-z0-9._:-]{0,200}$/
/** A private key of RSA with 4,096 bits has 2,400 octets. */
const SECRET_BYTES_MAX = 8_192

export type SecretsDeps = {
  readonly rows: SharedRows
  readonly roster: Roster
  readonly random: Random
}

export class ClusterSecrets {
  readonly #rows: SharedRows
  readonly #roster: Roster
  readonly #random: Random
  /** Opened once: the same box gives the same bytes. */
  readonly #opened = new Map<string, { readonly box: string; readonly secret: Uint8Array }>()

  constructor({ rows, roster, random }: SecretsDeps) {
    this.#rows = rows
    this.#roster = roster
    this.#random = random
    const share = (): void => void this.share()
    roster.onChange(share)
    rows.onChange(KIND, share)
  }

  /** A new secret, or another one under a name that is there. @throws StoreError */
  put(author: string, name: string, secret: Uint8Array): void {
    assert(NAME.test(name), 'a secret has a name')
    assert(secret.length > 0 && secret.length <= SECRET_BYTES_MAX, 'a secret has a bounded size')
    this.#rows.transact(() => {
      for (const member of this.#roster.members()) this.#seal(author, name, member, secret)
    })
  }

  /** Null: there is none, or nobody has sealed it for this node yet. */
  get(name: string): Uint8Array | null {
    const box = this.#box(name, this.#roster.self.node)
    if (box === null) return null
    const known = this.#opened.get(name)
    if (known?.box === box) return known.secret
    const secret = this.#open(name, box)
    if (secret !== null) this.#opened.set(name, { box, secret })
    return secret
  }

  /** @throws StoreError */
  remove(author: string, name: string): void {
    this.#opened.delete(name)
    this.#rows.transact(() => {
      for (const { key } of this.#rows.list(KIND, `${name}/`)) {
        if (this.#textOf(key) !== null) this.#rows.write(KIND, key, null, author)
      }
    })
  }

  /** Names of all that are there, in order. */
  names(): readonly string[] {
    const names = this.#rows
      .list(KIND)
      .filter(({ key }) => this.#textOf(key) !== null)
      .map(({ key }) => key.slice(0, key.indexOf('/')))
    return [...new Set(names)].sort()
  }

  /**
   * Seals what this node can open for members that have no box yet, and takes away the boxes of
   * those that are none any more. Two nodes may do so at once: both boxes hold the same. Gives how
   * many it wrote. @throws StoreError
   */
  share(): number {
    const members = this.#roster.members()
    const isMember = new Set<string>(members.map(({ node }) => node))
    let written = 0
    this.#rows.transact(() => {
      for (const name of this.names()) {
        const secret = this.get(name)
        if (secret === null) continue
        for (const member of members) {
          if (this.#box(name, member.node) !== null) continue
          this.#seal('postern', name, member, secret)
          written += 1
        }
        for (const { key } of this.#rows.list(KIND, `${name}/`)) {
          const node = key.slice(key.indexOf('/') + 1)
          if (isMember.has(node) || this.#textOf(key) === null) continue
          // Of a node that nobody knows yet it may be too early to say.
          if (this.#roster.get(node as NodeId) === null) continue
          this.#rows.write(KIND, key, null, 'postern')
          written += 1
        }
      }
    })
    return written
  }

  #seal(author: string, name: string, member: Member, secret: Uint8Array): void {
    const pair = newExchangePair(this.#random)
    const shared = agree(pair.secret, member.exchange)
    // A key with which everybody would agree on the same is no member's.
    if (shared === null) return
    const nonce = this.#random.bytes(XNONCE_BYTES)
    const about = aboutOf(name, member.node)
    const sealed = sealX(deriveKey(pair.public, shared, about), nonce, Buffer.from(about), secret)
    const box = Buffer.concat([pair.public, nonce, sealed]).toString('base64')
    this.#rows.write(KIND, `${name}/${member.node}`, JSON.stringify({ box }), author)
  }

  #open(name: string, box: string): Uint8Array | null {
    const { keys, node } = this.#roster.self
    const bytes = new Uint8Array(Buffer.from(box, 'base64'))
    const from = bytes.subarray(0, KEY_BYTES)
    const shared = agree(keys.exchange.secret, from)
    if (shared === null) return null
    const about = aboutOf(name, node)
    return openX(
      deriveKey(from, shared, about),
      bytes.subarray(KEY_BYTES, KEY_BYTES + XNONCE_BYTES),
      Buffer.from(about),
      bytes.subarray(KEY_BYTES + XNONCE_BYTES),
    )
  }

  #box(name: string, node: NodeId): string | null {
    const text = this.#textOf(`${name}/${node}`)
    if (text === null) return null
    try {
      const value: unknown = JSON.parse(text)
      const box = (value as { readonly box?: unknown } | null)?.box
      return typeof box === 'string' ? box : null
    } catch {
      return null
    }
  }

  /** The newest of several: all hold the same, or one of them another secret. */
  #textOf(key: string): string | null {
    const cell = this.#rows.cell(KIND, key)
    return cell === null ? null : headInForce(cell, 'latest').value
  }
}

function aboutOf(name: string, node: NodeId): string {
  return `postern secret ${name} ${node}`
}
