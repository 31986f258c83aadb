/** Signatures of our own on mail that goes out: the text comes from an inspector, the key stays here. */
import { createPrivateKey, type KeyObject, sign } from 'node:crypto'
import { relaxedField } from '../message/relaxed.ts'
import type { ToSign, Unsigned } from '../message/verdict.ts'

/** The private key as PKCS #8 (DER); null: it is not known on this node. */
export type KeyOf = (domain: string, selector: string) => Uint8Array | null

/** Characters of a line of a signature. */
const LINE = 72

/**
 * Makes whole header fields of what is to be signed; `missing` gets what there is no key for, or
 * none that works. Off the event loop: half a millisecond for a signature with RSA.
 */
export class Signatures {
  readonly #keyOf: KeyOf
  /** By domain and selector: reading a key costs more than a signature. */
  readonly #keys = new Map<string, { readonly der: Uint8Array; readonly key: KeyObject }>()

  constructor(keyOf: KeyOf) {
    this.#keyOf = keyOf
  }

  async fields(wanted: readonly ToSign[], missing: (one: ToSign) => void): Promise<string> {
    const fields = await Promise.all(wanted.map((one) => this.#field(one).catch(() => null)))
    for (const [at, one] of wanted.entries()) if (fields[at] === null) missing(one)
    return fields.join('')
  }

  async #field(one: ToSign): Promise<string | null> {
    const key = this.#key(one)
    if (key === null) return null
    return one.kind === 'dkim' ? await complete(one, key) : await sealed(one, key)
  }

  #key({ domain, selector }: ToSign): KeyObject | null {
    const der = this.#keyOf(domain, selector)
    if (der === null) return null
    const name = `${domain} ${selector}`
    const known = this.#keys.get(name)
    if (known?.der === der) return known.key
    const key = createPrivateKey({ key: Buffer.from(der), format: 'der', type: 'pkcs8' })
    this.#keys.set(name, { der, key })
    return key
  }
}

async function complete({ field, text }: Unsigned, key: KeyObject): Promise<string> {
  return `${field}${folded(await signed(text, key))}\r\n`
}

/** The seal goes over the signature that is made before it (RFC 8617 section 5.1.1). */
async function sealed(
  { results, message, seal }: Extract<ToSign, { kind: 'arc' }>,
  key: KeyObject,
): Promise<string> {
  const whole = await complete(message, key)
  const text = `${seal.text}${relaxedField(whole)}\r\n${relaxedField(seal.field)}`
  return `${await complete({ field: seal.field, text }, key)}${whole}${results}\r\n`
}

/** RFC 6376 section 3.3; Ed25519 signs the hash and not the text (RFC 8463 section 3). */
function signed(text: string, key: KeyObject): Promise<string> {
  const octets = Buffer.from(text, 'latin1')
  const isEd25519 = key.asymmetricKeyType === 'ed25519'
  const what = isEd25519 ? new Bun.CryptoHasher('sha256').update(octets).digest() : octets
  return new Promise((resolve, reject) =>
    sign(isEd25519 ? null : 'sha256', what, key, (error, signature) => {
      if (error === null) resolve(signature.toString('base64'))
      else reject(error)
    }),
  )
}

function folded(signature: string): string {
  const lines = signature.match(new RegExp(`.{1,${LINE}}`, 'g')) ?? []
  return lines.join('\r\n ')
}
