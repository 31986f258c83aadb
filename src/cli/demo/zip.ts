/** A zip archive of one file, stored without compression (APPNOTE 6.3, sections 4.3.7 to 4.3.16). */

const LOCAL_HEADER = 0x04034b50
const CENTRAL_HEADER = 0x02014b50
const CENTRAL_END = 0x06054b50
/** Any date will do: 1 January 2026, day 1, month 1, 46 years after 1980. */
const DOS_DATE = (46 << 9) | (1 << 5) | 1

/** `name` in ASCII. */
export function storedZip(name: string, content: Uint8Array): Uint8Array {
  const local = Buffer.alloc(30)
  local.writeUInt32LE(LOCAL_HEADER, 0)
  describe(local, 4, name, content)
  const central = Buffer.alloc(46)
  central.writeUInt32LE(CENTRAL_HEADER, 0)
  central.writeUInt16LE(20, 4)
  describe(central, 6, name, content)

  const title = Buffer.from(name, 'latin1')
  const start = local.length + title.length + content.length
  const end = Buffer.alloc(22)
  end.writeUInt32LE(CENTRAL_END, 0)
  end.writeUInt16LE(1, 8)
  end.writeUInt16LE(1, 10)
  end.writeUInt32LE(central.length + title.length, 12)
  end.writeUInt32LE(start, 16)
  return Buffer.concat([local, title, content, central, title, end])
}

/** The fields that both headers share, from "version needed" on. */
function describe(header: Buffer, at: number, name: string, content: Uint8Array): void {
  header.writeUInt16LE(20, at)
  header.writeUInt16LE(DOS_DATE, at + 8)
  header.writeUInt32LE(Bun.hash.crc32(content), at + 10)
  header.writeUInt32LE(content.length, at + 14)
  header.writeUInt32LE(content.length, at + 18)
  header.writeUInt16LE(name.length, at + 22)
}
