/** Questions between two nodes: an answer, a refusal or the reason why there is none. */
import { describe, expect, test } from 'bun:test'
import { RefusalError } from '../src/base/errors.ts'
import { LinkCalls, OPEN_MAX, WINDOW_BYTES } from '../src/cluster/calls.ts'
import { MESSAGE, MESSAGE_BYTES_MAX } from '../src/cluster/contract.ts'
import { encodeCall, encodePiece, readPiece } from '../src/cluster/wire.ts'
import { Mesh, type MeshNode, type MeshOptions } from './mesh.ts'

type Pair = {
  readonly mesh: Mesh
  readonly a: MeshNode
  readonly b: MeshNode
  readonly asks: LinkCalls
  readonly answers: LinkCalls
}

function pair(options?: MeshOptions): Pair {
  const mesh = new Mesh(options)
  const [a, b] = mesh.add(2) as [MeshNode, MeshNode]
  const calls = (node: MeshNode): LinkCalls =>
    new LinkCalls(node.links, { clock: node, observer: node.observer }, (id) =>
      id === b.id ? 'mx2' : 'mx1',
    )
  const [asks, answers] = [calls(a), calls(b)]
  mesh.join()
  return { mesh, a, b, asks, answers }
}

/** What a promise comes to while the mesh runs for `ms`. */
async function outcome(mesh: Mesh, ms: number, promise: Promise<unknown>): Promise<unknown> {
  let result: unknown = 'nothing'
  promise.then(
    (value) => {
      result = value
    },
    (error: unknown) => {
      result = error
    },
  )
  await mesh.runAsync(ms)
  return result
}

/** `size` bytes in parts of `part`; counts what was asked of it, and whether it was left. */
function source(
  size: number,
  part: number,
): { taken: number; left: boolean; bytes(): AsyncIterable<Uint8Array> } {
  const state = {
    taken: 0,
    left: false,
    async *bytes(): AsyncIterable<Uint8Array> {
      try {
        for (let from = 0; from < size; from += part) {
          state.taken += 1
          const bytes = new Uint8Array(Math.min(part, size - from))
          for (let place = 0; place < bytes.length; place += 1) bytes[place] = (from + place) % 251
          yield bytes
        }
      } finally {
        state.left = true
      }
    },
  }
  return state
}

async function readAll(bytes: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  for await (const part of bytes) parts.push(part)
  return new Uint8Array(Buffer.concat(parts))
}

describe('a question', () => {
  test('is answered', async () => {
    const { mesh, a, b, asks, answers } = pair()
    answers.answer('double', async (value, from) => {
      expect(from).toBe(a.id)
      return { kind: 'json', value: { twice: 2 * (value as number) } }
    })
    expect(await outcome(mesh, 50, asks.ask(b.id, 'double', 21))).toEqual({ twice: 42 })
  })

  test('is refused in the words of the other node', async () => {
    const { mesh, b, asks, answers } = pair()
    answers.answer('release', async () => {
      throw new RefusalError('conflict', 'id', 'It was released before.', 'Look at the trace.')
    })
    const refusal = (await outcome(mesh, 50, asks.ask(b.id, 'release', null))) as RefusalError
    expect(refusal).toBeInstanceOf(RefusalError)
    const { code, field, message, advice } = refusal
    expect({ code, field, message, advice }).toEqual({
      code: 'conflict',
      field: 'id',
      message: 'It was released before.',
      advice: 'Look at the trace.',
    })
  })

  test('to a node without a link, or about what it does not know, says so', async () => {
    const { mesh, a, b, asks } = pair()
    const unknown = (await outcome(mesh, 50, asks.ask(b.id, 'nothing', 1))) as RefusalError
    expect(unknown.message).toContain('does not know the question nothing')
    mesh.unlink(a, b)
    await mesh.runAsync(1)
    const away = (await outcome(mesh, 1, asks.ask(b.id, 'nothing', 1))) as RefusalError
    expect(away.code).toBe('unavailable')
    expect(away.message).toBe('Node mx2 did not answer: nobody answers at its addresses.')
  })

  test('that is not answered in time, or whose link is lost, ends as unavailable', async () => {
    const { mesh, a, b, asks, answers } = pair()
    answers.answer('slow', () => new Promise(() => {}))
    const slow = asks.ask(b.id, 'slow', 1)
    expect(await outcome(mesh, 4_900, slow)).toBe('nothing')
    const late = (await outcome(mesh, 200, slow)) as RefusalError
    expect(late.message).toBe('Node mx2 did not answer: nothing came within 5 s.')
    const lost = asks.ask(b.id, 'slow', 1)
    await mesh.runAsync(100)
    mesh.unlink(a, b)
    const cut = (await outcome(mesh, 10, lost)) as RefusalError
    expect(cut.code).toBe('unavailable')
    expect(cut.message).toContain('Node mx2')
  })

  test('that ends in an error of the other node does not show it, but it is in the log there', async () => {
    const { mesh, b, asks, answers } = pair()
    answers.answer('bug', async () => {
      throw new TypeError('undefined is not a secret')
    })
    answers.answer('long', async () => ({ kind: 'json', value: 'x'.repeat(MESSAGE_BYTES_MAX) }))
    for (const topic of ['bug', 'long']) {
      const error = (await outcome(mesh, 50, asks.ask(b.id, topic, 1))) as RefusalError
      expect(error.message).toContain('an error of its own')
      expect(error.message).not.toContain('secret')
    }
    expect(b.count('call.failed')).toBe(2)
  })

  test('is one of at most 64, on both sides', async () => {
    const { mesh, a, b, asks, answers } = pair()
    let running = 0
    answers.answer('slow', () => {
      running += 1
      return new Promise(() => {})
    })
    const open = Array.from({ length: OPEN_MAX }, () => asks.ask(b.id, 'slow', 1))
    for (const one of open) one.catch(() => {})
    const refused = (await outcome(mesh, 1, asks.ask(b.id, 'slow', 1))) as RefusalError
    expect(refused.message).toContain('64 questions to it are open')
    // The asker may forget; what runs here is counted here.
    await mesh.runAsync(6_000)
    const [link] = a.links.open.values()
    for (let id = 1_000; id < 1_100; id += 1) {
      link?.send(MESSAGE.call, encodeCall({ id, topic: 'slow', value: 1 }))
    }
    await mesh.runAsync(100)
    expect(running).toBe(OPEN_MAX)
  })
})

describe('a stream', () => {
  for (const [size, part] of [
    [0, 1],
    [1, 1],
    [100_000, 700],
    [3_000_000, 64 * 1024],
    [1_000_000, 1_000_000],
  ] as const) {
    test(`of ${size} bytes in parts of ${part} arrives whole`, async () => {
      const { mesh, b, asks, answers } = pair()
      const from = source(size, part)
      answers.answer('body', async () => ({ kind: 'stream', value: { size }, bytes: from.bytes() }))
      const lengths: number[] = []
      mesh.fate = (_from, _to, { type, body }) => {
        if (type === MESSAGE.piece) lengths.push(readPiece(body)?.bytes.length ?? -1)
        return { delayMs: 0 }
      }
      const read = asks.fetch(b.id, 'body', null).then(async ({ value, bytes }) => {
        expect(value).toEqual({ size })
        return readAll(bytes)
      })
      const bytes = (await outcome(mesh, 30_000, read)) as Uint8Array
      expect(bytes.length).toBe(size)
      expect(bytes.every((octet, place) => octet === place % 251)).toBe(true)
      expect(from.left).toBe(true)
      // All but the last of the bytes and the end itself.
      for (const length of lengths.slice(0, -2)) {
        expect(length).toBeGreaterThanOrEqual(32 * 1024)
        expect(length).toBeLessThanOrEqual(64 * 1024)
      }
    })
  }

  test('waits for room on a full link, and loses nothing', async () => {
    const { mesh, b, asks, answers } = pair({ bytesPerMs: 2_000 })
    answers.answer('body', async () => ({
      kind: 'stream',
      value: null,
      bytes: source(500_000, 64 * 1024).bytes(),
    }))
    const [link] = b.links.open.values()
    while (link?.send(99, new Uint8Array(1_000))) {}
    const read = asks.fetch(b.id, 'body', null).then(({ bytes }) => readAll(bytes))
    await mesh.runAsync(20)
    // The answer had no room yet; now it has, and the pieces behind it have none.
    for (let time = 0; time < 300; time += 1) {
      await mesh.runAsync(5)
      while (time < 200 && link?.send(99, new Uint8Array(1_000))) {}
    }
    const bytes = (await outcome(mesh, 5_000, read)) as Uint8Array
    expect(bytes.length).toBe(500_000)
    expect(bytes.every((octet, place) => octet === place % 251)).toBe(true)
  })

  test('that nobody takes stands still after a window', async () => {
    const { mesh, b, asks, answers } = pair()
    const from = source(10_000_000, 32 * 1024)
    answers.answer('body', async () => ({ kind: 'stream', value: null, bytes: from.bytes() }))
    const { bytes } = (await outcome(mesh, 50, asks.fetch(b.id, 'body', null))) as {
      bytes: AsyncIterable<Uint8Array>
    }
    await mesh.runAsync(10_000)
    expect(b.sent.byType.get(MESSAGE.piece)).toBeLessThanOrEqual(WINDOW_BYTES + 100)
    expect(from.taken).toBeLessThanOrEqual(WINDOW_BYTES / 32_768 + 2)
    const reader = bytes[Symbol.asyncIterator]()
    for (let piece = 0; piece < 20; piece += 1) {
      expect(await outcome(mesh, 100, reader.next())).toMatchObject({ done: false })
    }
    expect(from.taken).toBeLessThanOrEqual(20 + WINDOW_BYTES / 32_768 + 2)
    // And after a minute it is given up there, and here when it is read to that place.
    expect(from.left).toBe(false)
    await mesh.runAsync(61_000)
    expect(from.left).toBe(true)
    const rest = (await outcome(mesh, 10_000, readAll(bytes))) as RefusalError
    expect(rest).toBeInstanceOf(RefusalError)
  })

  test('that the reader leaves is left at its source', async () => {
    const { mesh, b, asks, answers } = pair()
    const from = source(10_000_000, 32 * 1024)
    answers.answer('body', async () => ({ kind: 'stream', value: null, bytes: from.bytes() }))
    const read = asks.fetch(b.id, 'body', null).then(async ({ bytes }) => {
      for await (const part of bytes) return part.length
      return 0
    })
    expect(await outcome(mesh, 1_000, read)).toBe(32 * 1024)
    await mesh.runAsync(1_000)
    expect(from.left).toBe(true)
  })

  test('that only its value is asked of is not sent', async () => {
    const { mesh, b, asks, answers } = pair()
    const from = source(10_000_000, 32 * 1024)
    answers.answer('body', async () => ({ kind: 'stream', value: 7, bytes: from.bytes() }))
    expect(await outcome(mesh, 1_000, asks.ask(b.id, 'body', null))).toBe(7)
    await mesh.runAsync(1_000)
    expect(from.left).toBe(true)
    expect(b.sent.byType.get(MESSAGE.piece) ?? 0).toBeLessThan(WINDOW_BYTES + 100)
  })

  test('that breaks off is never taken for whole', async () => {
    const { mesh, a, b, asks, answers } = pair({ bytesPerMs: 1_000 })
    answers.answer('broken', async () => ({
      kind: 'stream',
      value: null,
      bytes: (async function* () {
        yield new Uint8Array(40_000)
        throw new Error('the disk is gone')
      })(),
    }))
    const from = source(10_000_000, 32 * 1024)
    answers.answer('body', async () => ({ kind: 'stream', value: null, bytes: from.bytes() }))
    const broken = asks.fetch(b.id, 'broken', null).then(({ bytes }) => readAll(bytes))
    const error = (await outcome(mesh, 1_000, broken)) as RefusalError
    expect(error.message).toContain('Node mx2 did not answer: it broke off in the middle')
    const lost = asks.fetch(b.id, 'body', null).then(({ bytes }) => readAll(bytes))
    await mesh.runAsync(500)
    mesh.unlink(a, b)
    const cut = (await outcome(mesh, 1_000, lost)) as RefusalError
    expect(cut.code).toBe('unavailable')
    expect(from.left).toBe(true)
  })

  test('with more than was asked for ends the link', async () => {
    const { mesh, a, b, asks, answers } = pair()
    answers.answer('body', async () => ({
      kind: 'stream',
      value: null,
      bytes: source(40_000, 40_000).bytes(),
    }))
    const [link] = b.links.open.values()
    await outcome(mesh, 50, asks.fetch(b.id, 'body', null))
    // The id of the first question; its stream has ended: nothing to fill.
    link?.send(MESSAGE.piece, encodePiece({ id: 1, end: 'open', bytes: new Uint8Array(60_000) }))
    await mesh.runAsync(50)
    expect(a.links.closedWhy).toEqual([])
    answers.answer('endless', async () => ({
      kind: 'stream',
      value: null,
      bytes: source(10_000_000, 32 * 1024).bytes(),
    }))
    await outcome(mesh, 50, asks.fetch(b.id, 'endless', null))
    link?.send(MESSAGE.piece, encodePiece({ id: 2, end: 'open', bytes: new Uint8Array(60_000) }))
    await mesh.runAsync(200)
    expect(a.links.closedWhy).toEqual(['it sent more of a stream than it was asked for'])
  })
})
