/** Memory of received blocks: given back at once, not when the collector looks. */
import { expect, test } from 'bun:test'
import { giveBack } from '../src/base/memory.ts'

test('a block that is given back holds nothing any more, nor does any view of its memory', () => {
  const block = Buffer.allocUnsafeSlow(100_000)
  const view = block.subarray(10)
  giveBack(block)
  expect(block.length).toBe(0)
  expect(view.length).toBe(0)
})
