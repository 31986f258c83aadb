/**
 * The witness: a node that is silent as a peer is asked at its port for mail whether it lives
 * (design: mail.md, A dead node). SMTP verb, answered with 250 only to a member, under the key that
 * two nodes share, for one question:
 *
 *     XPOSTERN <asker id> <nonce> <mac>            250 2.0.0 <node> <epoch> <delivering> <mac>
 *
 * Nonce and macs are hexadecimal, 32 digits. Everybody else reads what he would for any word that
 * is none.
 */
import { type NodeId, parseNodeId } from '../base/ids.ts'
import type { ClusterDeps, Member, PeerAddress, Roster, Self } from './contract.ts'
import { agree, deriveKey, hmac, isSame } from './seal.ts'

export const WITNESS_VERB = 'XPOSTERN'
const NONCE_BYTES = 16
const MAC_BYTES = 16
/** Each address: connection, a greeting that may be late by 10 s, question and answer. */
const ASK_MS_MAX = 20_000
const REPLY_BYTES_MAX = 8_192
/** Questions of one second for which a hash is computed. */
const ANSWERS_A_SECOND = 50
const LINE = /^(\d{3})([ -])(.*)$/

export type WitnessOptions = {
  readonly self: Self
  readonly roster: Pick<Roster, 'clusterId' | 'get' | 'onChange'>
  /** This node is a member, and knows what others did while it was away. */
  readonly mayAnswer: () => boolean
  /** Its queue is at work. */
  readonly isDelivering: () => boolean
}

export class Witness {
  readonly #options: WitnessOptions
  readonly #deps: ClusterDeps
  readonly #keys = new Map<NodeId, Uint8Array | null>()
  #left = ANSWERS_A_SECOND
  #filledMono = 0

  constructor(options: WitnessOptions, deps: ClusterDeps) {
    this.#options = options
    this.#deps = deps
    // A node comes back only under another id: the key of an id never changes.
    options.roster.onChange(() => {
      for (const node of this.#keys.keys()) {
        if (options.roster.get(node)?.standing !== 'member') this.#keys.delete(node)
      }
    })
  }

  /**
   * For the SMTP session: the text after `250 2.0.0 ` for what stood after the verb; null: it is
   * no question of a member, or not to be answered now. One hash, and that not too often.
   */
  answer(rest: string): string | null {
    const [asker = '', nonce = '', mac = '', more] = rest.trim().toLowerCase().split(' ')
    const node = parseNodeId(asker)
    if (node === null || more !== undefined || !isHex(nonce, NONCE_BYTES)) return null
    // Who does not know the id of a member costs nothing, and cannot use up the others' answers.
    const key = isHex(mac, MAC_BYTES) ? this.#keyWith(node) : null
    if (key === null || !this.#mayCompute()) return null
    if (!isSame(bytesOf(mac), macOf(key, `ask ${node} ${nonce}`))) return null
    if (!this.#options.mayAnswer()) return null
    const { self, isDelivering } = this.#options
    const said = `${self.node} ${self.epoch} ${isDelivering() ? 1 : 0}`
    return `${said} ${hexOf(macOf(key, `answer ${nonce} ${said}`))}`
  }

  /** Whether the node says, at any of these addresses, that it still delivers. Never rejects. */
  async isDelivering(member: Member, addresses: readonly PeerAddress[]): Promise<boolean> {
    const answers = await Promise.all(addresses.map((address) => this.#ask(member, address)))
    return answers.includes(true)
  }

  #ask(member: Member, address: PeerAddress): Promise<boolean> {
    const { network, clock, random } = this.#deps
    const key = this.#keyWith(member.node)
    if (key === null) return Promise.resolve(false)
    const me = this.#options.self.node
    const nonce = hexOf(random.bytes(NONCE_BYTES))
    const question = `${WITNESS_VERB} ${me} ${nonce} ${hexOf(macOf(key, `ask ${me} ${nonce}`))}`
    return new Promise((resolve) => {
      const timer = clock.after(ASK_MS_MAX, () => resolve(false))
      const done = (isDelivering: boolean): void => {
        timer.cancel()
        resolve(isDelivering)
      }
      network
        .dial(
          address,
          (stream) => {
            const dialogue = new Dialogue((text) => {
              if (text === 'greeted') stream.write(encode(`${question}\r\n`))
              else {
                stream.write(encode('QUIT\r\n'))
                stream.end()
                done(text !== 'refused' && this.#isProof(member, key, nonce, text.said))
              }
            })
            const end = clock.after(ASK_MS_MAX, () => stream.terminate())
            return {
              received: (bytes) => {
                if (dialogue.take(bytes)) return
                stream.terminate()
                done(false)
              },
              drained: () => {},
              closed: () => {
                end.cancel()
                done(false)
              },
            }
          },
          ASK_MS_MAX,
        )
        .catch(() => done(false))
    })
  }

  /** `said`: what stands after the code; of the node itself, for this question, and it delivers. */
  #isProof({ node }: Member, key: Uint8Array, nonce: string, said: string): boolean {
    const [id = '', epoch = '', delivering = '', mac = ''] = said.split(' ')
    if (id !== node || !isHex(mac, MAC_BYTES)) return false
    const expected = macOf(key, `answer ${nonce} ${id} ${epoch} ${delivering}`)
    return isSame(bytesOf(mac), expected) && delivering === '1'
  }

  #keyWith(node: NodeId): Uint8Array | null {
    const known = this.#keys.get(node)
    if (known !== undefined) return known
    const { self, roster } = this.#options
    const member = roster.get(node)
    if (member?.standing !== 'member' || node === self.node) return null
    const secret = agree(self.keys.exchange.secret, member.exchange)
    const ends = [self.node, node].sort().join(' ')
    const salt = encode(roster.clusterId)
    const key = secret === null ? null : deriveKey(salt, secret, `witness ${ends}`)
    this.#keys.set(node, key)
    return key
  }

  /** A bucket of one second. */
  #mayCompute(): boolean {
    const nowMono = this.#deps.clock.monoMs()
    const earned = ((nowMono - this.#filledMono) * ANSWERS_A_SECOND) / 1_000
    this.#filledMono = nowMono
    this.#left = Math.min(ANSWERS_A_SECOND, this.#left + earned)
    if (this.#left < 1) return false
    this.#left -= 1
    return true
  }
}

/** Just enough SMTP: a greeting, then the reply to one command. */
class Dialogue {
  readonly #on: (what: 'greeted' | 'refused' | { readonly said: string }) => void
  #text = ''
  #isGreeted = false
  #isOver = false

  constructor(on: (what: 'greeted' | 'refused' | { readonly said: string }) => void) {
    this.#on = on
  }

  /** False: it is no SMTP server. */
  take(bytes: Uint8Array): boolean {
    this.#text += Buffer.from(bytes).toString('latin1')
    if (this.#text.length > REPLY_BYTES_MAX) return false
    for (;;) {
      const end = this.#text.indexOf('\r\n')
      if (end < 0 || this.#isOver) return true
      const line = LINE.exec(this.#text.slice(0, end))
      this.#text = this.#text.slice(end + 2)
      if (line === null) return false
      const [, code, more, said = ''] = line
      if (more === '-') continue
      if (!this.#isGreeted) {
        if (code !== '220') return false
        this.#isGreeted = true
        this.#on('greeted')
        continue
      }
      this.#isOver = true
      const isAnswer = code === '250' && said.startsWith('2.0.0 ')
      this.#on(isAnswer ? { said: said.slice(6) } : 'refused')
    }
  }
}

function macOf(key: Uint8Array, text: string): Uint8Array {
  return hmac(key, encode(text)).slice(0, MAC_BYTES)
}

function isHex(text: string, bytes: number): boolean {
  return text.length === 2 * bytes && /^[0-9a-f]*$/.test(text)
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

function hexOf(bytes: Uint8Array): string {
  return bytes.toHex()
}

function bytesOf(hex: string): Uint8Array {
  return Uint8Array.fromHex(hex)
}
