/** The handshake against vectors of another implementation, and against changed messages. */
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { type Random, SeededRandom } from '../src/base/random.ts'
import {
  Handshake,
  nextKey,
  nextKeyGcm,
  nonceOf,
  nonceOfGcm,
  type Pattern,
} from '../src/cluster/noise.ts'
import {
  agree,
  exchangePairOf,
  newExchangePair,
  open,
  openGcm,
  openX,
  seal,
  sealGcm,
  sealX,
  sha256,
  ThreadedKey,
} from '../src/cluster/seal.ts'
import { vectors } from './noise/vectors.json'

type Vector = (typeof vectors)[number] & {
  readonly init_static?: string
  readonly resp_static?: string
  readonly init_remote_static?: string
  readonly init_psks?: readonly string[]
}

/** Gives the one ephemeral key of the vector. */
function drawing(hex: string): Random {
  return { bytes: () => bytes(hex), below: () => 0 }
}

function bytes(hex: string): Uint8Array {
  return Uint8Array.fromHex(hex)
}

function pairOf(secret: string | undefined) {
  return secret === undefined ? null : exchangePairOf(bytes(secret))
}

function sidesOf(vector: Vector): [Handshake, Handshake] {
  const pattern = vector.protocol_name.split('_')[1] as Pattern
  const [psk] = vector.init_psks ?? []
  const common = {
    pattern,
    prologue: bytes(vector.init_prologue),
    psk: psk === undefined ? null : bytes(psk),
  }
  const remote = vector.init_remote_static
  return [
    new Handshake(
      {
        ...common,
        initiator: true,
        own: pairOf(vector.init_static),
        peer: remote === undefined ? null : bytes(remote),
      },
      drawing(vector.init_ephemeral),
    ),
    new Handshake(
      { ...common, initiator: false, own: pairOf(vector.resp_static), peer: null },
      drawing(vector.resp_ephemeral),
    ),
  ]
}

/** The hashes of the handshake, computed from what went over the wire alone. */
function hashesOf(vector: Vector): string[] {
  const name = new TextEncoder().encode(vector.protocol_name)
  let hash = name.length > 32 ? sha256(name) : new Uint8Array(32)
  if (name.length <= 32) hash.set(name)
  const hashes: string[] = []
  const mix = (part: Uint8Array): void => {
    hash = sha256(hash, part)
    hashes.push(hash.toHex())
  }
  mix(bytes(vector.init_prologue))
  if (vector.init_remote_static !== undefined) mix(bytes(vector.init_remote_static))
  for (const [place, part] of LAYOUT[vector.protocol_name.split('_')[1] ?? '']?.entries() ?? []) {
    const message = bytes(vector.messages[place]?.ciphertext ?? '')
    let at = 0
    for (const length of part) {
      mix(message.slice(at, at + length))
      at += length
    }
    mix(message.slice(at))
  }
  return hashes
}

/** Lengths of what stands before the payload, for each message. */
const LAYOUT: Readonly<Record<string, readonly (readonly number[])[]>> = {
  NN: [[32], [32]],
  XX: [[32], [32, 48], [48]],
  IK: [[32, 48], [32]],
  IKpsk2: [[32, 48], [32]],
}

describe('published vectors', () => {
  test.each(vectors)('$protocol_name gives the published bytes', (vector) => {
    const sides = sidesOf(vector)
    let place = 0
    while (!sides[0].isFinished) {
      const { payload, ciphertext } = vector.messages[place] ?? { payload: '', ciphertext: '' }
      const [writer, reader] = place % 2 === 0 ? sides : [sides[1], sides[0]]
      expect(writer.write(bytes(payload))?.toHex()).toBe(ciphertext)
      expect(reader.read(bytes(ciphertext))?.toHex()).toBe(payload)
      place += 1
    }
    const [initiator, responder] = [sides[0].split(), sides[1].split()]
    expect(initiator.hash).toEqual(responder.hash)
    const hashes = hashesOf(vector)
    expect(hashes).toContain(vector.handshake_hash)
    // The psk goes into the last hash: from the wire alone it cannot be computed.
    if (vector.init_psks === undefined) expect(initiator.hash.toHex()).toBe(hashes.at(-1) ?? '')
    expect([initiator.send, initiator.receive]).toEqual([responder.receive, responder.send])
    const counts = [0, 0]
    for (; place < vector.messages.length; place += 1) {
      const { payload, ciphertext } = vector.messages[place] ?? { payload: '', ciphertext: '' }
      const way = place % 2
      const nonce = nonceOf(counts[way] ?? 0)
      counts[way] = (counts[way] ?? 0) + 1
      const key = way === 0 ? initiator.send : responder.send
      expect(seal(key, nonce, new Uint8Array(0), bytes(payload)).toHex()).toBe(ciphertext)
    }
  })
})

describe('changed messages', () => {
  test.each(vectors)('one changed bit anywhere ends $protocol_name', (vector) => {
    const length = handshakeLength(vector)
    for (let place = 0; place < length; place += 1) {
      const message = bytes(vector.messages[place]?.ciphertext ?? '')
      for (let at = 0; at < message.length; at += 1) {
        expect({ place, at, gotThrough: survives(vector, length, place, at) }).toEqual({
          place,
          at,
          gotThrough: false,
        })
      }
    }
  })

  test('a message that is cut off or made longer ends it', () => {
    const vector = vectors.find(({ protocol_name }) => protocol_name.includes('_IK_'))
    if (vector === undefined) throw new Error('the vector is there')
    const message = bytes(vector.messages[0]?.ciphertext ?? '')
    for (let length = 0; length < message.length; length += 1) {
      expect(sidesOf(vector)[1].read(message.slice(0, length))).toBeNull()
    }
    expect(sidesOf(vector)[1].read(Uint8Array.of(...message, 0))).toBeNull()
  })
})

function handshakeLength(vector: Vector): number {
  return vector.protocol_name.includes('_XX_') ? 3 : 2
}

/**
 * Whether both sides end with the same keys although one bit of one message was changed. In
 * patterns that begin in clear the reader cannot see it; the next message does.
 */
function survives(vector: Vector, length: number, changed: number, at: number): boolean {
  const sides = sidesOf(vector)
  for (let place = 0; place < length; place += 1) {
    const [writer, reader] = place % 2 === 0 ? sides : [sides[1], sides[0]]
    const message = writer.write(bytes(vector.messages[place]?.payload ?? ''))
    if (message === null) return false
    if (place === changed) message[at] = (message[at] ?? 0) ^ (1 << (at % 8))
    if (reader.read(message) === null) return false
  }
  return sides[0].split().hash.toHex() === sides[1].split().hash.toHex()
}

describe('keys', () => {
  const random = new SeededRandom(3)

  test('who holds another key than the one that is called cannot answer', () => {
    const [own, called, other] = [
      newExchangePair(random),
      newExchangePair(random),
      newExchangePair(random),
    ]
    const common = { pattern: 'IK', prologue: new Uint8Array(0), psk: null } as const
    const initiator = new Handshake(
      { ...common, initiator: true, own, peer: called.public },
      random,
    )
    const middle = new Handshake({ ...common, initiator: false, own: other, peer: null }, random)
    expect(middle.read(initiator.write(new Uint8Array(3)) ?? new Uint8Array(0))).toBeNull()
  })

  test('a wrong psk ends the handshake at the second message', () => {
    const [own, called] = [newExchangePair(random), newExchangePair(random)]
    const common = { pattern: 'IKpsk2', prologue: new Uint8Array(0) } as const
    const initiator = new Handshake(
      { ...common, initiator: true, own, peer: called.public, psk: random.bytes(32) },
      random,
    )
    const responder = new Handshake(
      { ...common, initiator: false, own: called, peer: null, psk: random.bytes(32) },
      random,
    )
    const first = initiator.write(new Uint8Array(3))
    expect(responder.read(first ?? new Uint8Array(0))).toEqual(new Uint8Array(3))
    const second = responder.write(new Uint8Array(3))
    expect(initiator.read(second ?? new Uint8Array(0))).toBeNull()
  })

  test('points that give everybody the same secret are refused', () => {
    const { secret } = newExchangePair(random)
    // RFC 7748 section 6.1: the points of small order.
    const order8 = 'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800'
    for (const point of ['00'.repeat(32), `01${'00'.repeat(31)}`, order8]) {
      expect(agree(secret, bytes(point))).toBeNull()
    }
    expect(agree(secret, new Uint8Array(31))).toBeNull()
  })

  test('the next key is another one, the same on both sides', () => {
    const key = random.bytes(32)
    expect(nextKey(key)).toEqual(nextKey(key.slice()))
    expect(nextKey(key)).not.toEqual(key)
    expect(nextKey(key).length).toBe(32)
  })
})

describe('sealing', () => {
  test('other threads give the bytes that this one gives, and open them', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.uint8Array({ maxLength: 8 }),
        fc.uint8Array({ maxLength: 70_000 }),
        fc.nat(),
        async (key, aad, text, count) => {
          const nonce = nonceOf(count)
          const threaded = new ThreadedKey(key)
          const sealed = seal(key, nonce, aad, text)
          expect((await threaded.seal(nonce, aad, text)).toHex()).toBe(sealed.toHex())
          expect((await threaded.open(nonce, aad, sealed))?.toHex()).toBe(text.toHex())
          expect(open(key, nonce, aad, sealed)?.toHex()).toBe(text.toHex())
          sealed[count % sealed.length] = (sealed[count % sealed.length] ?? 0) ^ 1
          expect(await threaded.open(nonce, aad, sealed)).toBeNull()
          expect(open(key, nonce, aad, sealed)).toBeNull()
        },
      ),
      { numRuns: 50 },
    )
  })

  test('AESGCM gives the bytes of another implementation, and opens nothing that was changed', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.uint8Array({ maxLength: 8 }),
        fc.uint8Array({ maxLength: 70_000 }),
        fc.nat(),
        async (key, aad, text, count) => {
          const nonce = nonceOfGcm(count)
          const sealed = new Uint8Array(Buffer.concat(sealGcm(key, nonce, aad, text)))
          const other = await crypto.subtle.importKey('raw', key, 'AES-GCM', false, ['encrypt'])
          const how = { name: 'AES-GCM', iv: nonce, additionalData: aad }
          const bytes = await crypto.subtle.encrypt(how, other, text)
          expect(sealed.toHex()).toBe(new Uint8Array(bytes).toHex())
          expect(openGcm(key, nonce, aad, sealed)?.toHex()).toBe(text.toHex())
          expect(openGcm(key, nonceOfGcm(count + 1), aad, sealed)).toBeNull()
          expect(openGcm(key, nonce, Uint8Array.of(...aad, 0), sealed)).toBeNull()
          expect(openGcm(key, nonce, aad, sealed.subarray(1))).toBeNull()
          const at = count % sealed.length
          sealed[at] = (sealed[at] ?? 0) ^ 1
          expect(openGcm(key, nonce, aad, sealed)).toBeNull()
        },
      ),
      { numRuns: 50 },
    )
    expect(openGcm(new Uint8Array(32), nonceOfGcm(0), new Uint8Array(4), new Uint8Array(15))).toBe(
      null,
    )
    // NIST's test case 14 (key, nonce and text all zero): 16 octets and their tag.
    const zeros = (length: number): Uint8Array => new Uint8Array(length)
    const [ciphertext, tag] = sealGcm(zeros(32), zeros(12), zeros(0), zeros(16))
    expect(ciphertext.toHex()).toBe('cea7403d4d606b6e074ec5d3baf39d18')
    expect(tag.toHex()).toBe('d0d1c8a799996bf0265b98b5d48ab919')
  })

  test('counters of AESGCM are big-endian, and its next key is not that of ChaChaPoly', () => {
    expect(nonceOfGcm(0x1_0203_0405).toHex()).toBe('000000000000000102030405')
    expect(nonceOf(0x1_0203_0405).toHex()).toBe('000000000504030201000000')
    const key = new SeededRandom(3).bytes(32)
    expect(nextKeyGcm(key)).toEqual(nextKeyGcm(key.slice()))
    expect(nextKeyGcm(key)).not.toEqual(nextKey(key))
    expect([nextKeyGcm(key).length, key.length]).toEqual([32, 32])
  })

  test('a Buffer is sealed as the bytes that it holds', () => {
    const [key, nonce] = [new SeededRandom(1).bytes(32), nonceOf(7)]
    const text = Buffer.from('a piece of a larger buffer').subarray(2, 9)
    const sealed = seal(key, nonce, Buffer.from('aad'), text)
    expect(open(key, nonce, Buffer.from('aad'), Buffer.from(sealed))).toEqual(new Uint8Array(text))
  })

  test('long nonces seal and open, and a change shows', () => {
    const random = new SeededRandom(2)
    const [key, nonce, aad] = [random.bytes(32), random.bytes(24), random.bytes(12)]
    const sealed = sealX(key, nonce, aad, aad)
    expect(openX(key, nonce, aad, sealed)).toEqual(aad)
    expect(openX(key, nonce, aad.slice(1), sealed)).toBeNull()
    expect(openX(key, nonce, aad, sealed.slice(0, 10))).toBeNull()
  })
})
