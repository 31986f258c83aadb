/** Codes as pictures, for the tests of their reader. */
import { crc32, deflateSync } from 'node:zlib'
import { prepareZXingModule, writeBarcode } from 'zxing-wasm/writer'
import writerWasm from 'zxing-wasm/writer/zxing_writer.wasm' with { type: 'file' }

await prepareZXingModule({
  overrides: { wasmBinary: await Bun.file(writerWasm).arrayBuffer() },
  fireImmediately: true,
})

export type Gray = { readonly width: number; readonly height: number; readonly gray: Uint8Array }

/** The code as squares of `module` pixels in a quiet zone. */
export async function draw(text: string, module = 4): Promise<Gray> {
  const { symbol, error } = await writeBarcode(text, { format: 'QRCode', scale: 1 })
  if (symbol === undefined) throw new Error(error)
  const quiet = 4
  const side = (symbol.width + 2 * quiet) * module
  const gray = new Uint8Array(side * side).fill(255)
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) {
      const [column, row] = [Math.floor(x / module) - quiet, Math.floor(y / module) - quiet]
      if (column < 0 || row < 0 || column >= symbol.width || row >= symbol.height) continue
      gray[y * side + x] = symbol.data[row * symbol.width + column] ?? 255
    }
  }
  return { width: side, height: side, gray }
}

/** A chunk of a PNG. */
export function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data])
  const out = Buffer.alloc(body.length + 8)
  out.writeUInt32BE(data.length, 0)
  out.set(body, 4)
  out.writeUInt32BE(crc32(body), body.length + 4)
  return out
}

export function png({ width, height, gray }: Gray): Buffer {
  const lines = Buffer.alloc((width + 1) * height)
  for (let y = 0; y < height; y += 1) {
    lines.set(gray.subarray(y * width, (y + 1) * width), y * (width + 1) + 1)
  }
  const head = Buffer.alloc(13)
  head.writeUInt32BE(width, 0)
  head.writeUInt32BE(height, 4)
  head[8] = 8
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', head),
    chunk('IDAT', deflateSync(lines)),
    chunk('IEND', Buffer.of()),
  ])
}

export function turned({ width, height, gray }: Gray, degrees: number): Gray {
  const side = Math.ceil(Math.hypot(width, height))
  const out = new Uint8Array(side * side).fill(255)
  const [cos, sin] = [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)]
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) {
      const [dx, dy] = [x - side / 2, y - side / 2]
      const from = Math.round(dx * cos + dy * sin + width / 2)
      const down = Math.round(dy * cos - dx * sin + height / 2)
      if (from < 0 || down < 0 || from >= width || down >= height) continue
      out[y * side + x] = gray[down * width + from] ?? 255
    }
  }
  return { width: side, height: side, gray: out }
}

/** Pictures of one height in a row. */
export function beside(pictures: readonly Gray[]): Gray {
  const height = Math.max(...pictures.map((each) => each.height))
  const width = pictures.reduce((sum, each) => sum + each.width, 0)
  const gray = new Uint8Array(width * height).fill(255)
  let left = 0
  for (const each of pictures) {
    for (let y = 0; y < each.height; y += 1) {
      gray.set(each.gray.subarray(y * each.width, (y + 1) * each.width), y * width + left)
    }
    left += each.width
  }
  return { width, height, gray }
}
