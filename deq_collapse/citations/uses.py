"""The references on which each shipped part is based. A new loss, cell, solver, sampler or measure gets a
line here and an entry in ``references.bib``; ``()`` if it is textbook material or described by another part's
reference.
"""

ALWAYS = ("papyan2020prevalence", "sun2024understanding")
"""Neural collapse, and the question that this package asks."""
CORE = (*ALWAYS, "bai2019deep", "geng2023torchdeq")
"""What is printed if no run is given."""
STUDY = ("holm1979simple", "vandermaaten2008visualizing")
"""Additional references for the report of a study."""

CLASSES: dict[str, tuple[str, ...]] = {
    "losses.BalancedSoftmax": ("ren2020balanced",),
    "losses.CrossEntropy": (),
    "losses.DotRegression": ("yang2022inducing",),
    "losses.Focal": ("lin2017focal",),
    "losses.LDAM": ("cao2019learning",),
    "losses.LogitAdjustment": ("menon2021long",),
    "losses.SquaredError": ("hui2021evaluation",),
    "losses.VectorScaling": ("kini2021label",),
    "models.Anderson": ("anderson1965iterative", "walker2011anderson"),
    "models.BatchNormCell": ("fung2022jfb",),
    "models.Broyden": ("broyden1965class",),
    "models.ConvCell": (),
    "models.CircularEncoder": ("winston2020monotone",),
    "models.ConvEncoder": (),
    "models.ConvReadout": (),
    "models.CosineClassifier": ("cao2019learning",),
    "models.Equilibrium": ("bai2019deep", "geng2023torchdeq"),
    "models.Explicit": (),
    "models.FixedETF": ("yang2022inducing",),
    "models.FixedPoint": (),
    "models.GlobalAverage": (),
    "models.Implicit": ("bai2019deep",),
    "models.JacobianFree": ("fung2022jfb",),
    "models.LinearCell": (),
    "models.LinearEncoder": (),
    "models.MDEQCell": ("bai2020multiscale",),
    "models.MDEQHead": ("bai2020multiscale",),
    "models.MLPCell": (),
    "models.MonotoneCell": ("winston2020monotone",),
    "models.MultiscaleCell": ("bai2020multiscale",),
    "models.OptEqCell": ("xie2023optimization",),
    "models.PatchAverage": (),
    "models.PatchEncoder": ("dosovitskiy2021image",),
    "models.Phantom": ("geng2021training",),
    "models.PooledEncoder": (),
    "models.ResNetEncoder": ("he2016deep",),
    "models.ResidualCell": ("bai2020multiscale",),
    "models.TokenAverage": (),
    "models.Tolerance": (),
    "models.TorchvisionEncoder": (),
    "models.TransformerCell": ("vaswani2017attention",),
    "models.Unrolled": (),
    "models.VectorEncoder": (),
    "models.WarmupMultiStep": ("cao2019learning",),
    "data.Balanced": (),
    "data.CIFAR10": ("krizhevsky2009learning",),
    "data.CIFAR100": ("krizhevsky2009learning",),
    "data.Counts": (),
    "data.CropFlip": (),
    "data.Cutout": ("devries2017improved",),
    "data.Digits": ("alpaydin1998optical",),
    "data.FashionMNIST": ("xiao2017fashion",),
    "data.GaussianMixture": (),
    "data.ImageFiles": (),
    "data.ImageFolder": (),
    "data.KMNIST": ("clanuwat2018deep",),
    "data.LongTailed": ("cao2019learning",),
    "data.MNIST": ("lecun1998gradient",),
    "data.Natural": (),
    "data.ParetoTailed": ("liu2019large",),
    "data.Replay": (),
    "data.Resampled": ("kang2020decoupling", "shen2016relay"),
    "data.STL10": ("coates2011analysis",),
    "data.SVHN": ("netzer2011reading",),
    "data.Shuffled": (),
    "data.Step": ("fang2021exploring",),
    "data.TensorFile": (),
    "torch.optim.Adam": ("kingma2015adam",),
    "torch.optim.AdamW": ("loshchilov2019decoupled",),
    "torch.optim.lr_scheduler.CosineAnnealingLR": ("loshchilov2017sgdr",),
}
"""By subpackage and name: ``losses.LDAM`` is ``deq_collapse.losses.LDAM``, wherever its file is. For classes
of other libraries that are not listed, see their documentation.
"""

OPTIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("solver", r"anderson"): ("anderson1965iterative", "walker2011anderson"),
    ("solver", r"broyden"): ("broyden1965class",),
    ("gradient", r"jfb"): ("fung2022jfb",),
    ("gradient", r"phantom"): ("geng2021training",),
    ("jacobian_weight", r"0*\.?0*[1-9]"): ("bai2021stabilizing",),
    ("weights.beta", r"0?\.\d*[1-9]"): ("cui2019class",),
    ("weights.after", r"0?\.\d*[1-9]"): ("cao2019learning",),
    ("from_epoch", r"[1-9]"): ("cao2019learning",),
    ("mixup", r"0*\.?0*[1-9]"): ("zhang2018mixup",),
    ("weight_norm", r"[Tt]rue"): ("salimans2016weight",),
    ("lipschitz", r"0*\.?0*[1-9]"): ("miyato2018spectral",),
}
"""By the end of a key's name and the beginning of its value."""

MEASURES: dict[str, tuple[str, ...]] = {
    "nc0": ("zhao2026optimizer",),
    "nc1_trace_ratio": ("tirer2023perturbation",),
    "nc2_etf": ("zhu2021geometric",),
    "nc3_product": ("zhu2021geometric",),
    "nc4": ("papyan2020prevalence",),
    "nc5": ("ammar2024neco",),
    "cdnv": ("galanti2022role",),
    "cdnv_directional": ("luthra2026directional",),
    "uniformity": ("liu2023generalizing",),
    "minority_cos": ("fang2021exploring",),
    "majority_minority_norm": ("fang2021exploring",),
    "seli": ("thrampoulidis2022imbalance",),
    "gof": ("dang2023neural",),
    "relu_ce": ("dang2024neural",),
    "gnc_margin": ("jiang2024generalized",),
    "gnc2": ("wu2024linguistic",),
    "unc3": ("wu2024linguistic",),
    "separation_fuzziness": ("he2023law",),
    "vci": ("xu2023quantifying",),
    "effective_rank": ("roy2007effective",),
    "accuracy_tau": ("kang2020decoupling",),
    "accuracy_ncm": ("kang2020decoupling",),
    "accuracy_many": ("liu2019large",),
}
"""By the beginning of a measure's name."""
