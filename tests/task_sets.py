"""Small local Parquet files as `--data` reads them: columns lang, split and row beside the set's own."""

import pyarrow as pa
import pyarrow.parquet as pq

SIB = {
    "th": {
        "train": [
            ("นักวิทยาศาสตร์ค้นพบดาวเคราะห์ดวงใหม่ที่อยู่นอกระบบสุริยะของเรา", "science/technology"),
            ("ทีมฟุตบอลไทยชนะการแข่งขันในคืนวันเสาร์ที่ผ่านมาด้วยคะแนนสองต่อหนึ่ง", "sports"),
            ("นายกรัฐมนตรีประกาศยุบสภาเมื่อเช้านี้หลังการประชุม", "politics"),
        ],
        "test": [("แพทย์แนะนำให้ดื่มน้ำวันละแปดแก้ว", "health"), ("ภูเขาที่สูงที่สุดอยู่ในเนปาล", "geography")],
    },
    "en": {
        "train": [
            ("Scientists found a new planet that lies far outside of our own solar system.", "science/technology"),
            ("The Thai football team won the match on Saturday night by two goals to one.", "sports"),
            ("The prime minister dissolved the parliament this morning after a meeting.", "politics"),
        ],
        "test": [("Doctors say that one should drink eight glasses.", "health"), ("Nepal is high.", "geography")],
    },
}
BELEBELE = {
    "th": ("ข่าววันนี้ นักวิทยาศาสตร์ค้นพบดาวเคราะห์ดวงใหม่ที่อยู่นอกระบบสุริยะของเรา และตั้งชื่อแล้ว", "พบอะไร"),
    "en": ("News: scientists found a new planet that lies far outside of our own solar system, and named it.", "What?"),
}
NEWS = {
    "en": ["The market opened at noon.", "Nobody was hurt in the fire."],
    "th": ["ตลาดเปิดตอนเที่ยง", "ไม่มีผู้ใดได้รับบาดเจ็บจากเพลิงไหม้"],
}


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_sets(folder):
    """`sib200.parquet`, `belebele.parquet` and `ntrex128.parquet` in Thai and English."""
    sib = [
        {"lang": lang, "split": split, "row": number, "text": text, "label": label}
        for lang, splits in SIB.items()
        for split, items in splits.items()
        for number, (text, label) in enumerate(items)
    ]
    sib += [row | {"split": "dev"} for row in sib if row["split"] == "test"]
    write_parquet(folder / "sib200.parquet", sib)
    choices = ["a planet", "a star", "a moon", "a comet"]
    belebele = [
        {
            "lang": lang,
            "split": "test",
            "row": 0,
            "passage": passage,
            "question": question,
            "choices": choices,
            "answer": 2,
        }
        for lang, (passage, question) in BELEBELE.items()
    ]
    write_parquet(folder / "belebele.parquet", belebele)
    news = [
        {"lang": lang, "split": "test", "row": number, "doc": "d", "text": text}
        for lang, texts in NEWS.items()
        for number, text in enumerate(texts)
    ]
    write_parquet(folder / "ntrex128.parquet", news)
    return folder
