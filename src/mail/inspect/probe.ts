/** stub */
export async function runProbe(_args: readonly string[]): Promise<number> { return 0 }
